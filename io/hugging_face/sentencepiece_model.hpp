// The content of a serialized SentencePiece model. The library's interface gives pieces and scores only; the
// rules of normalisation and the algorithm that splits text are in the protocol buffer alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct SentencePieceModel {
    enum class Algorithm { unigram = 1, byte_pair = 2, word = 3, character = 4 };
    enum class Kind { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
    struct Piece {
        std::string text;  // UTF-8, with U+2581 for a space
        float score = 0;
        Kind kind = Kind::normal;
    };

    std::vector<Piece> pieces;  // by id
    Algorithm algorithm = Algorithm::unigram;
    bool byte_fallback = false;      // characters without a piece become bytes instead of the unknown piece
    bool space_behind_word = false;  // the dummy space is added at the end of the text

    std::string rules;           // name of the normalisation rules: identity, nmt_nfkc, ...
    std::string character_map;   // the compiled rules; empty: none
    bool dummy_space = true;     // a space is added before the first word
    bool strips_spaces = true;   // spaces at both ends are removed, and runs of spaces become one
    bool escapes_spaces = true;  // spaces become U+2581
};

/// Throws UserError if the bytes are not such a model.
SentencePieceModel read_sentencepiece_model(const std::string& serialized);

}  // namespace switchyard
