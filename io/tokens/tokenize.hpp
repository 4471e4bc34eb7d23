// tokenize(): text to a token file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/tokens/token_file.hpp"

namespace switchyard {

struct TokenizeOptions {
    // Files of text or JSON lines (an object a line), told apart by their content; "-" for standard input.
    // UTF-8; bytes that are not become U+FFFD and are counted in a warning.
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
        "blank-lines";            // plain text: "file" (one document a file), "blank-lines", "line"
    std::uint64_t seed = 0;       // which documents go to validation
    std::string format = "auto";  // of the inputs: each by its content, or all are "text" or "jsonl"
    std::optional<std::string>
        text_key;                 // of JSON lines; a path with dots reaches into objects; none: "text"
    bool skip_bad_lines = false;  // of JSON lines: counted and named instead of an error
    bool overwrite = false;       // what `output` was
    bool show_progress = true;
};
/// What was made, and what its maker should read: how each input was taken, what documents begin with,
/// whether text comes back from its tokens.
struct TokenizeResult : TokenFileInfo {
    std::vector<std::string> remarks;
};

/// Streams the inputs into `output`.partial, then renames. Throws UserError with file and line on bad input.
/// With two or more documents and validation > 0 each split gets at least one. Uses all OpenMP threads; the
/// result does not depend on their number.
TokenizeResult tokenize(const TokenizeOptions&);

}  // namespace switchyard
