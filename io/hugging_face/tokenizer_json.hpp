// Expresses a SentencePiece model as a tokenizer.json of Hugging Face's `tokenizers`, which works without
// SentencePiece. It must give the model's own ids; texts for which it cannot are reported.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace switchyard {

struct TokenizerJson {
    nlohmann::json content;                // null: `tokenizers` has no such algorithm
    std::vector<std::string> differences;  // texts that get other ids there, with the reason
};

/// `begin_token`: the id that texts begin with; -1: none. Throws UserError if the model is damaged.
TokenizerJson tokenizer_json(const std::string& sentencepiece_model, std::int32_t begin_token);

}  // namespace switchyard
