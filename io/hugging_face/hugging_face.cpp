// Keys are those of transformers 4 and 5: where they differ both are written and either is read.
#include "io/hugging_face/hugging_face.hpp"

#include <cmath>
#include <set>

#include "core/error.hpp"
#include "io/files/strict_json.hpp"

namespace switchyard {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* architecture = "LlamaForCausalLM";

/// Keys of one config.json with their checks; null counts as absent.
class Keys {
  public:
    Keys(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

    bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
    /// Of a key that is there.
    Keys object(const char* key) const {
        require(object_[key].is_object(), "{}: {} is not an object", where_, key);
        return {object_[key], where_ + ", " + key};
    }
    std::int64_t size(const char* key, std::optional<std::int64_t> otherwise = std::nullopt) const {
        if (!has(key) && otherwise) return *otherwise;
        require(has(key), "{} lacks {} (the model's sizes come from it); download it again", where_, key);
        const bool in_range = object_[key].is_number_unsigned() && object_[key].get<std::uint64_t>() >= 1 &&
                              object_[key].get<std::uint64_t>() <= 1u << 30;
        require(in_range, "{}: {} = {} is not a size (a whole number from 1 to 2^30 is expected)", where_, key,
                shown(key));
        return object_[key].get<std::int64_t>();
    }
    double positive(const char* key, double otherwise) const {
        if (!has(key)) return otherwise;
        const double value = object_[key].is_number() ? object_[key].get<double>() : 0;
        require(std::isfinite(value) && value > 0, "{}: {} = {} is not a positive number", where_, key,
                shown(key));
        return value;
    }
    bool flag(const char* key) const {
        if (!has(key)) return false;
        require(object_[key].is_boolean(), "{}: {} = {} is neither true nor false", where_, key, shown(key));
        return object_[key].get<bool>();
    }
    /// The key is absent or has this value.
    void only(const char* key, const json& value, const char* why) const {
        require(!has(key) || object_[key] == value,
                "{}: {} = {} is not supported ({}); only {} can be imported", where_, key, shown(key), why,
                value.dump());
    }
    const std::string& where() const { return where_; }

  private:
    std::string shown(const char* key) const {
        if (!has(key)) return "nothing";
        const std::string text = object_[key].dump(-1, ' ', true, json::error_handler_t::replace);
        return text.size() > 120 ? text.substr(0, 120) + "..." : text;
    }

    const json& object_;
    std::string where_;
};

void check_plain_rotation(const Keys& rope) {
    const char* why = "positions are rotated by the plain angles of rope_theta";
    rope.only("rope_type", "default", why);
    rope.only("type", "default", why);
    rope.only("partial_rotary_factor", 1.0, "all values of a head are rotated");
    require(!rope.has("factor") || rope.has("rope_type") || rope.has("type"),
            "{}: factor without a type is not supported ({}); only \"default\" can be imported", rope.where(),
            why);
}

double read_rope_theta(const Keys& keys) {
    if (keys.has("rope_scaling")) check_plain_rotation(keys.object("rope_scaling"));
    keys.only("partial_rotary_factor", 1.0, "all values of a head are rotated");
    const double theta = keys.positive("rope_theta", ModelConfig().rope_theta);
    if (!keys.has("rope_parameters")) return theta;
    const Keys rope = keys.object("rope_parameters");
    check_plain_rotation(rope);
    const double newer = rope.positive("rope_theta", theta);
    require(newer == theta || !keys.has("rope_theta"),
            "{}: rope_theta = {} and rope_parameters.rope_theta = {} (one of them is wrong); correct the file",
            keys.where(), theta, newer);
    return newer;
}

void check_supported(const Keys& keys) {
    require(keys.has("model_type"), "{} lacks model_type (it says which model this is); download it again",
            keys.where());
    keys.only("model_type", "llama", "this program knows LLaMA");
    if (keys.has("architectures"))
        keys.only("architectures", json::array({architecture}),
                  "this program knows the causal language model");
    keys.only("hidden_act", "silu", "the feed-forward layers are SwiGLU");
    keys.only("attention_bias", false, "linears have no bias");
    keys.only("mlp_bias", false, "linears have no bias");
    require(!keys.has("quantization_config"),
            "{}: quantization_config is not supported (weights are read as they are); save the model in bf16 "
            "or f32",
            keys.where());
}

/// alpha with alpha / r == scale, in f64 as PEFT divides.
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
                        {"attention_bias", false},
                        {"mlp_bias", false},
                        {"attention_dropout", 0.0},
                        {"initializer_range", model.init_std},
                        {"use_cache", true},
                        {"dtype", dtype},
                        {"torch_dtype", dtype}};
    for (const char* key : {"bos_token_id", "eos_token_id"})
        config[key] = facts.end_token ? ordered_json(*facts.end_token) : ordered_json(nullptr);
    return config;
}

ordered_json llama_tokenizer_config(const Tokenizer& tokenizer, std::int64_t max_positions, bool begins) {
    const std::string end = tokenizer.piece(tokenizer.end_token());
    return {{"tokenizer_class", "LlamaTokenizer"},
            {"bos_token", end},
            {"eos_token", end},
            {"unk_token", tokenizer.piece(tokenizer.unknown_token())},
            {"add_bos_token", begins},
            {"add_eos_token", false},
            {"add_prefix_space", tokenizer.adds_space()},
            {"clean_up_tokenization_spaces", false},
            {"legacy", false},
            {"model_max_length", max_positions}};
}

LlamaModel read_llama_config(const std::string& directory) {
    const std::string path = directory + "/config.json";
    const json config = read_json_object(path);
    const Keys keys(config, "`" + path + "`");
    check_supported(keys);
    LlamaModel result;
    ModelConfig& model = result.model;
    model.vocab_size = keys.size("vocab_size");
    model.hidden_size = keys.size("hidden_size");
    model.ffn_size = keys.size("intermediate_size");
    model.num_layers = keys.size("num_hidden_layers");
    model.num_heads = keys.size("num_attention_heads");
    model.num_kv_heads = keys.size("num_key_value_heads", model.num_heads);
    model.tie_embeddings = keys.flag("tie_word_embeddings");
    model.norm_eps = keys.positive("rms_norm_eps", model.norm_eps);
    model.rope_theta = read_rope_theta(keys);
    keys.only("head_dim", model.hidden_size / model.num_heads,
              "a head has hidden_size / num_attention_heads values");
    result.max_positions = keys.size("max_position_embeddings", result.max_positions);
    return result;
}

ordered_json peft_config(const std::vector<AdapterModule>& modules, const std::string& base) {
    internal_check(!modules.empty(), "an adapter without modules");
    std::set<std::string> targets;
    ordered_json ranks = ordered_json::object(), alphas = ordered_json::object();
    const std::int64_t r = modules[0].low_rank;
    const double alpha = alpha_of(modules[0].scale, r);
    for (const AdapterModule& module : modules) {
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
            {"use_dora", false},
            {"init_lora_weights", true},
            {"modules_to_save", nullptr},
            {"inference_mode", true}};
}

std::string peft_name(const std::string& module, const std::string& factor) {
    return "base_model.model." + module + "." + factor + ".weight";
}

}  // namespace switchyard
