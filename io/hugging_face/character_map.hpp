// The compiled normalisation rules of a SentencePiece model, and how the `tokenizers` library can be made to
// follow them.
#pragma once

#include <map>
#include <string>

namespace switchyard {

/// Rules by their left sides: at each place of a text the longest left side that fits is replaced, and the
/// result is not looked at again.
using CharacterMap = std::map<std::u32string, std::u32string>;

/// Of SentencePieceModel::character_map: bytes of a double-array trie, then the right sides, each ended by a
/// zero. Throws UserError when the bytes are not that.
CharacterMap read_character_map(const std::string& compiled);

/// True for Unicode's NFKC, with or without more rules for single characters: rules of several characters
/// then say how marks and Hangul syllables are composed.
bool composes_characters(const CharacterMap&);

/// A regular expression of the places before a mark (or another character that rules join to those before it)
/// where no rule joins it: Unicode's composition must not either. Zero characters wide, never at the start of
/// the text.
std::string places_not_joined(const CharacterMap&);

/// Throws UserError when the bytes are not UTF-8.
std::u32string utf32_of(const std::string&);

}  // namespace switchyard
