// The compiled normalisation rules of a SentencePiece model, and regular expressions with which the
// `tokenizers` library follows them.
#pragma once

#include <map>
#include <string>

namespace switchyard {

/// The rules by their left sides. At each place of a text the longest left side that fits is replaced, and
/// the result is not normalised again.
using CharacterMap = std::map<std::u32string, std::u32string>;

/// Parses SentencePieceModel::character_map: the bytes of a double-array trie, then the right sides, each
/// ended by a zero. Throws UserError for other bytes.
CharacterMap read_character_map(const std::string& compiled);

/// True for Unicode's NFKC, with or without further rules for single characters. The rules for several
/// characters are then those that compose marks and Hangul syllables.
bool composes_characters(const CharacterMap&);

/// A regular expression that matches the places before a mark (or another character that rules join to those
/// before it) where no rule joins it, so that Unicode's composition must not either. It matches zero
/// characters and never the start of the text.
std::string places_not_joined(const CharacterMap&);

/// Throws UserError if the bytes are not UTF-8.
std::u32string utf32_of(const std::string&);

}  // namespace switchyard
