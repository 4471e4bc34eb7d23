// What a serialized SentencePiece model says of itself. SentencePiece's interface shows pieces and scores
// only; how text is normalised and which algorithm splits it stands in its protocol buffer alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct SentencePieceModel {
    enum class Algorithm { unigram = 1, byte_pair = 2, word = 3, character = 4 };
    enum class Kind { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
    struct Piece {
        std::string text;  // UTF-8, a space as U+2581
        float score = 0;
        Kind kind = Kind::normal;
    };

    std::vector<Piece> pieces;  // by id
    Algorithm algorithm = Algorithm::unigram;
    bool byte_fallback = false;  // characters that are not pieces become bytes, otherwise the unknown piece
    bool space_behind_word = false;  // the dummy space goes to the end of the text

    std::string rules;           // name of the normalisation: identity, nmt_nfkc, ...
    std::string character_map;   // its compiled rules; empty: none
    bool dummy_space = true;     // one before the first word
    bool strips_spaces = true;   // at both ends, and runs of them to one
    bool escapes_spaces = true;  // to U+2581
};

/// Throws UserError when the bytes are not such a model.
SentencePieceModel read_sentencepiece_model(const std::string& serialized);

}  // namespace switchyard
