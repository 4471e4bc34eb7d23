// A tokenizer that exists already, with what its owner says of documents: a token file has its own begin and
// end token, a directory of Hugging Face says them in JSON beside the model, a bare model file says nothing.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard {

struct GivenTokenizer {
    std::string model;              // serialized SentencePiece model
    std::int32_t begin_token = -1;  // begins every document; -1: none does
    std::int32_t end_token = -1;    // ends every document; -1: the tokenizer has none
    std::string said_by;            // the file that said so; "": the model alone
};

/// tokenizer.model or spiece.model in a directory.
bool holds_tokenizer(const std::string& directory);

/// Of a token file, a directory (tokenizer.model or spiece.model in it) or a model file; a model file of
/// these names is read with the files beside it. Throws UserError: missing, of a kind that cannot be run
/// here, at odds with its JSON. A begin token that is the end token too is none: every document follows an
/// end token anyway.
GivenTokenizer read_given_tokenizer(const std::string& path);

}  // namespace switchyard
