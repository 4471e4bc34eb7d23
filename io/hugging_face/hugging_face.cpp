// The keys are those of transformers 4 and 5. Where the versions differ, both keys are written and either is
// read.
#include "io/hugging_face/hugging_face.hpp"

#include <cmath>
#include <set>

#include "core/error.hpp"

namespace switchyard {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* architecture = "LlamaForCausalLM";

/// alpha such that alpha / r == scale in f64, which is how PEFT divides.
double alpha_of(double scale, std::int64_t low_rank) {
    const auto r = static_cast<double>(low_rank);
    const double alpha = scale * r;
    for (const double candidate :
         {std::round(alpha), alpha, std::nextafter(alpha, 0.0), std::nextafter(alpha, 1e308)})
        if (candidate / r == scale) return candidate;
    internal_check(false, "no alpha gives scale {} at rank {}", scale, low_rank);
    return alpha;
}

json alpha_number(double alpha) {
    return alpha == std::floor(alpha) && std::abs(alpha) < 1e15 ? json(static_cast<std::int64_t>(alpha))
                                                                : json(alpha);
}

}  // namespace

ordered_json llama_config(const ModelConfig& model, const LlamaFacts& facts) {
    const char* const dtype = facts.dtype == DType::bf16 ? "bfloat16" : "float32";
    ordered_json config{{"architectures", {architecture}},
                        {"model_type", "llama"},
                        {"vocab_size", model.vocab_size},
                        {"hidden_size", model.hidden_size},
                        {"intermediate_size", model.ffn_size},
                        {"num_hidden_layers", model.num_layers},
                        {"num_attention_heads", model.num_heads},
                        {"num_key_value_heads", model.num_kv_heads},
                        {"head_dim", model.hidden_size / model.num_heads},
                        {"hidden_act", "silu"},
                        {"max_position_embeddings", facts.max_positions},
                        {"rms_norm_eps", model.norm_eps},
                        {"rope_theta", model.rope_theta},
                        {"rope_scaling", nullptr},
                        {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", model.rope_theta}}},
                        {"tie_word_embeddings", model.tie_embeddings},
                        {"attention_bias", facts.biases},
                        {"mlp_bias", facts.biases},
                        {"attention_dropout", 0.0},
                        {"initializer_range", model.init_std},
                        {"use_cache", true},
                        {"dtype", dtype},
                        {"torch_dtype", dtype}};
    const auto id = [](const std::optional<std::int32_t>& token) {
        return token ? ordered_json(*token) : ordered_json(nullptr);
    };
    config["bos_token_id"] = id(facts.first_token);
    config["eos_token_id"] = id(facts.end_token);
    return config;
}

/// PreTrainedTokenizerFast uses tokenizer.json unchanged; LlamaTokenizer would replace its rules for spaces.
/// Text that spells a piece such as <s> stays text, as in training.
ordered_json llama_tokenizer_config(const Tokenizer& tokenizer, const LlamaFacts& facts, bool begins) {
    return {{"tokenizer_class", "PreTrainedTokenizerFast"},
            {"bos_token", tokenizer.piece(facts.first_token.value())},
            {"eos_token", tokenizer.piece(facts.end_token.value())},
            {"unk_token", tokenizer.piece(tokenizer.unknown_token())},
            {"add_bos_token", begins},
            {"add_eos_token", false},
            {"split_special_tokens", true},
            {"clean_up_tokenization_spaces", false},
            {"model_max_length", facts.max_positions}};
}

ordered_json peft_config(const std::vector<AdapterModule>& modules, const std::string& base) {
    internal_check(!modules.empty(), "an adapter without modules");
    std::set<std::string> targets;
    ordered_json ranks = ordered_json::object(), alphas = ordered_json::object();
    const std::int64_t r = modules[0].low_rank;
    const double alpha = alpha_of(modules[0].scale, r);
    for (const AdapterModule& module : modules) {
        internal_check(module.magnitude == modules[0].magnitude, "an adapter with and without magnitudes");
        targets.insert(module.name.substr(module.name.rfind('.') + 1));
        const double own = alpha_of(module.scale, module.low_rank);
        if (module.low_rank != r) ranks[module.name] = module.low_rank;
        if (own != alpha) alphas[module.name] = alpha_number(own);
    }
    return {{"peft_type", "LORA"},
            {"task_type", "CAUSAL_LM"},
            {"base_model_name_or_path", base},
            {"r", r},
            {"lora_alpha", alpha_number(alpha)},
            {"target_modules", targets},
            {"rank_pattern", ranks},
            {"alpha_pattern", alphas},
            {"lora_dropout", 0.0},
            {"bias", "none"},
            {"fan_in_fan_out", false},
            {"use_rslora", false},
            {"use_dora", modules[0].magnitude},
            {"init_lora_weights", true},
            {"modules_to_save", nullptr},
            {"inference_mode", true}};
}

std::string peft_name(const std::string& module, const std::string& factor) {
    // PEFT leaves `.weight` away from magnitudes in files.
    const std::string own = factor == "lora_magnitude" ? "lora_magnitude_vector" : factor + ".weight";
    return "base_model.model." + module + "." + own;
}

}  // namespace switchyard
