// tokenizer.json: a SentencePiece model in the words of Hugging Face's `tokenizers`, which splits text by it
// without SentencePiece. It must give the model's own ids; where it cannot, it is said.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace switchyard {

struct TokenizerJson {
    nlohmann::json content;                // null: `tokenizers` has no such algorithm
    std::vector<std::string> differences;  // texts that get other ids there, and why
};

/// `begin_token`: the id that texts begin with; -1: none. Throws UserError when the model is damaged.
TokenizerJson tokenizer_json(const std::string& sentencepiece_model, std::int32_t begin_token);

}  // namespace switchyard
