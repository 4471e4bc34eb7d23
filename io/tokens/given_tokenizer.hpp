// An existing tokenizer, with the begin and end token of documents. A token file stores both; in a directory
// of Hugging Face, JSON files beside the model tell them; a model file alone does not tell them.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard {

struct GivenTokenizer {
    std::string model;              // serialized SentencePiece model
    std::int32_t begin_token = -1;  // begins every document; -1: none does
    std::int32_t end_token = -1;    // ends every document; -1: the tokenizer has no end token
    std::string said_by;            // the file that names the begin token; "": none does
};

/// True if the directory has a tokenizer.model or spiece.model.
bool holds_tokenizer(const std::string& directory);

/// Reads the tokenizer of a token file, a directory (with tokenizer.model or spiece.model) or a model file;
/// the JSON files beside a model file with one of these names are read too. Throws UserError if it is
/// missing, of an unsupported kind, or contradicts its JSON files. A begin token that equals the end token
/// counts as none, because every document follows an end token anyway.
GivenTokenizer read_given_tokenizer(const std::string& path);

}  // namespace switchyard
