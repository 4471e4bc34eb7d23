// The JSON files of Hugging Face model and adapter directories, and the names that they use.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "io/tokens/token_file.hpp"

namespace switchyard {

/// What config.json holds besides the model's sizes.
struct LlamaFacts {
    std::int64_t max_positions = 2048;                   // longest sequence that the model was made for
    DType dtype = DType::f32;                            // type of the values in the files beside it
    std::optional<std::int32_t> first_token, end_token;  // of texts; of documents
    bool biases = false;                                 // every linear of a block has one
};

/// The config.json of a LlamaForCausalLM.
nlohmann::ordered_json llama_config(const ModelConfig&, const LlamaFacts&);
/// The tokenizer_config.json for a tokenizer.json; `begins`: texts begin with facts.first_token.
nlohmann::ordered_json llama_tokenizer_config(const Tokenizer&, const LlamaFacts&, bool begins);

struct LlamaModel {
    ModelConfig model;
    std::int64_t max_positions = 2048;
};
/// Reads directory/config.json. Throws UserError naming the key for anything that this program does not
/// compute: other models and activations, biases, scaled or partial rotary positions, quantised weights,
/// other head sizes.
LlamaModel read_llama_config(const std::string& directory);

/// The ids in config.json and generation_config.json. If both have one, that of the latter is used, as in
/// transformers.
struct SpecialTokens {
    std::optional<std::int64_t> begin;
    std::vector<std::int64_t> ends;
};
SpecialTokens read_special_tokens(const std::string& directory);

/// The low-rank factors of one linear, for example "model.layers.0.self_attn.q_proj".
struct AdapterModule {
    std::string name;
    std::int64_t low_rank = 0;
    double scale = 1;        // factor on B A
    bool magnitude = false;  // rows of the sum have trained norms (DoRA)
};
/// The adapter_config.json of PEFT's LoRA, with or without DoRA; alpha / r equals each scale exactly.
nlohmann::ordered_json peft_config(const std::vector<AdapterModule>&, const std::string& base);
/// The name of a factor in PEFT; `factor`: lora_A, lora_B or lora_magnitude.
std::string peft_name(const std::string& module, const std::string& factor);

}  // namespace switchyard
