// tokenize(): text to a token file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/tokens/token_file.hpp"

namespace switchyard {

struct TokenizeOptions {
    // Text files, .jsonl files (an object a line, key "text"), "-" for standard input (text, or JSONL when
    // its first line is such an object). UTF-8; bytes that are not become U+FFFD and are counted in a
    // warning.
    std::vector<std::string> inputs;
    std::string output;
    // A SentencePiece model, a folder or a token file that holds one, or "" to train one with vocab_size
    // pieces.
    std::string tokenizer;
    std::int64_t vocab_size = 0;
    // What documents begin with: "auto" (as the tokenizer's owner says, see given_tokenizer.hpp), "none" or
    // "bos" (the model's begin piece).
    std::string begin_token = "auto";
    double validation = 0.01;  // share of the documents, chosen by a hash of (seed, document)
    std::string document_separator =
        "blank-lines";       // plain text: "file" (one document a file), "blank-lines", "line"
    std::uint64_t seed = 0;  // which documents go to validation
    bool show_progress = true;
};
/// Streams the inputs into `output`.partial, then renames. Throws UserError with file and line on bad input.
/// With two or more documents and validation > 0 each split gets at least one. Uses all OpenMP threads; the
/// result does not depend on their number.
TokenFileInfo tokenize(const TokenizeOptions&);

}  // namespace switchyard
