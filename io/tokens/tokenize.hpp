// tokenize(): makes a token file from text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/tokens/token_file.hpp"

namespace switchyard {

struct TokenizeOptions {
    // Files of text or JSON lines (one object per line), told apart by their content; "-" is standard input.
    // In UTF-8; other bytes become U+FFFD and are counted in a warning.
    std::vector<std::string> inputs;
    std::string output;
    // A SentencePiece model, a folder or token file with one, or "" to train one with vocab_size pieces.
    std::string tokenizer;
    std::int64_t vocab_size = 0;
    // How documents begin: "auto" (as the tokenizer's files tell, see given_tokenizer.hpp), "none" or "bos"
    // (the model's begin piece).
    std::string begin_token = "auto";
    double validation = 0.01;  // share of the documents, chosen by a hash of (seed, document)
    std::string document_separator =
        "blank-lines";            // for plain text: "file" (one document per file), "blank-lines" or "line"
    std::uint64_t seed = 0;       // decides which documents go to validation
    std::string format = "auto";  // "auto": by the content of each input; or all are "text" or "jsonl"
    std::optional<std::string>
        text_key;                 // of JSON lines; a path with dots reaches into objects; default: "text"
    bool skip_bad_lines = false;  // of JSON lines: counts and names bad lines instead of stopping
    bool overwrite = false;       // replaces an existing `output`
    bool show_progress = true;
};
/// The token file, and remarks for the user: the format of each input, the begin token, and whether text
/// comes back from its tokens.
struct TokenizeResult : TokenFileInfo {
    std::vector<std::string> remarks;
};

/// Streams the inputs into `output`.partial, then renames it. Throws UserError with file and line on bad
/// input. With two or more documents and validation > 0 each split gets at least one. Uses all OpenMP
/// threads; the result does not depend on their number.
TokenizeResult tokenize(const TokenizeOptions&);

}  // namespace switchyard
