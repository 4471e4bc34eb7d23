// Reads the config.json of a LLaMA model. If a value is stored in two places, both must agree.
#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "io/files/files.hpp"
#include "io/files/strict_json.hpp"
#include "io/hugging_face/config_keys.hpp"
#include "io/hugging_face/harmless_keys.hpp"
#include "io/hugging_face/hugging_face.hpp"

namespace switchyard {
namespace {

using nlohmann::json;

constexpr const char* plain_angles = "positions are rotated by the plain angles of rope_theta";
constexpr const char* whole_heads = "all values of a head are rotated";

/// A value that may be stored in several places. The first one found counts, and the others must equal it.
class OneValue {
  public:
    OneValue(const char* name, const std::string& file) : name_(name), file_(file) {}
    void add(const std::string& place, std::optional<double> value) {
        if (!value) return;
        if (!value_) {
            value_ = value;
            place_ = place;
        }
        require(*value == *value_,
                "{}: {} = {} and {} = {} contradict each other (both are {}); correct the file", file_,
                place_, *value_, place, *value, name_);
    }
    double or_else(double otherwise) const { return value_.value_or(otherwise); }

  private:
    const char* name_;
    const std::string& file_;
    std::optional<double> value_;
    std::string place_;
};

/// Reads rope_scaling or rope_parameters; returns its rope_theta. Linear and llama3 scaling by 1 change no
/// angle.
std::optional<double> read_rotation(const ConfigKeys& rope) {
    const bool typed = rope.has("rope_type") || rope.has("type");
    const bool unscaled = rope.has("factor") && rope.value("factor") == 1.0;
    const std::vector<json> types =
        unscaled ? std::vector<json>{"default", "linear", "llama3"} : std::vector<json>{"default"};
    rope.only("rope_type", types, plain_angles);
    rope.only("type", types, plain_angles);
    if (!typed) rope.only("factor", {1.0}, plain_angles);
    rope.only("partial_rotary_factor", {1.0}, whole_heads);
    const bool is_default = (!rope.has("rope_type") || rope.value("rope_type") == "default") &&
                            (!rope.has("type") || rope.value("type") == "default");
    if (!is_default) rope.only("attention_factor", {1.0}, plain_angles);
    for (const char* key : keys_of_scaled_rotation) rope.ignore(key);
    const std::optional<double> theta = rope.positive("rope_theta");
    rope.refuse_others();
    return theta;
}

double read_rope_theta(const ConfigKeys& keys) {
    OneValue theta("the base of the angles", keys.where());
    theta.add("rope_theta", keys.positive("rope_theta"));
    for (const char* key : {"rope_parameters", "rope_scaling"})
        if (keys.has(key)) theta.add(std::string(key) + ".rope_theta", read_rotation(keys.object(key)));
    for (const char* key : {"rotary_emb_base", "rotary_base", "rope_base"})
        theta.add(key, keys.positive(key));
    return theta.or_else(ModelConfig().rope_theta);
}

bool is_causal_llama(const json& name) {
    if (!name.is_string()) return false;
    std::string lower = name.get<std::string>();
    for (char& c : lower)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return lower == "llamaforcausallm";  // early converters wrote LLaMAForCausalLM
}

void check_kind(const ConfigKeys& keys) {
    const char* what = "this program knows the causal language model LLaMA";
    bool named = keys.has("model_type");
    keys.only("model_type", {"llama"}, what);
    if (keys.has("architectures")) {
        const json& names = keys.value("architectures");
        require(names.is_array(), "{}: architectures = {} is not a list; correct the file", keys.where(),
                keys.shown("architectures"));
        for (const json& name : names)
            require(
                is_causal_llama(name),
                "{}: architectures = {} is not supported ({}); only [\"LlamaForCausalLM\"] can be imported",
                keys.where(), keys.shown("architectures"), what);
        named = named || !names.empty();
    }
    require(named, "{} lacks model_type and architectures (they say which model this is); download it again",
            keys.where());
    if (!keys.has("auto_map")) return;
    require(keys.value("auto_map").is_object(), "{}: auto_map = {} is not an object; correct the file",
            keys.where(), keys.shown("auto_map"));
    for (const auto& [name, value] : keys.value("auto_map").items())
        require(name == "AutoTokenizer" || name == "AutoConfig",
                "{}: auto_map has {} (the model brings its own code, which may compute something else than "
                "LLaMA); remove the key if transformers' LlamaForCausalLM gives the same",
                keys.where(), quoted(name));
}

/// Checks keys of related models that leave LLaMA unchanged for one value only.
void check_neutral(const ConfigKeys& keys, const ModelConfig& model) {
    const json no = false, yes = true, one = 1, zero = 0, nothing = json::object();
    for (const char* key : {"attention_bias", "mlp_bias", "attn_bias", "qkv_bias", "use_bias", "bias"})
        keys.only(key, {no}, "linears have no bias");
    for (const char* key : {"hidden_act", "hidden_activation", "activation_function"})
        keys.only(key, {"silu", "swish"}, "the feed-forward layers are SwiGLU");
    for (const char* key :
         {"embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale", "scale_emb"})
        keys.only(key, {one}, "embeddings, branches and logits are not scaled");
    for (const char* key : {"final_logit_softcapping", "attn_logit_softcapping", "logits_soft_cap"})
        keys.only(key, {zero, no}, "logits are not capped");
    for (const char* key :
         {"num_experts", "num_local_experts", "n_routed_experts", "n_shared_experts", "num_experts_per_tok"})
        keys.only(key, {zero}, "there are no experts");
    for (const char* key : {"qk_norm", "use_qk_norm", "qk_layernorm"})
        keys.only(key, {no}, "queries and keys are not normalised");
    for (const char* key : {"is_causal", "causal"}) keys.only(key, {yes}, "attention is causal");
    for (const char* key : {"is_encoder_decoder", "add_cross_attention", "tie_encoder_decoder",
                            "use_bidirectional_attention", "alibi", "use_parallel_residual", "parallel_attn"})
        keys.only(key, {no}, "this is a plain decoder");
    keys.only("cross_attention_hidden_size", {zero}, "this is a plain decoder");
    keys.only("pruned_heads", {nothing}, "no head is pruned");
    for (const char* key : {"partial_rotary_factor", "rotary_pct"}) keys.only(key, {1.0}, whole_heads);
    for (const char* key : {"rope_interleaved", "rope_traditional", "use_mrope", "rotary_interleaved"})
        keys.only(key, {no}, "the halves of a head are rotated together");
    keys.only("position_embedding_type", {"rope", "rotary"}, plain_angles);
    const double head = static_cast<double>(model.hidden_size) / static_cast<double>(model.num_heads);
    keys.only_near("attention_multiplier", 1 / std::sqrt(head), "scores are divided by the root of head_dim");
    keys.only_near("query_pre_attn_scalar", head, "scores are divided by the root of head_dim");
}

/// Checks the keys that decide which positions a layer sees.
void check_layers(const ConfigKeys& keys, const ModelConfig& model) {
    const auto require_all = [&](const char* key, const json& value, const char* why) {
        if (!keys.has(key)) return;
        const json& given = keys.value(key);
        const bool all = given.is_array() && given.size() == static_cast<std::size_t>(model.num_layers) &&
                         std::all_of(given.begin(), given.end(), [&](const json& v) { return v == value; });
        require(all, "{}: {} = {} is not supported ({}); only {} for each of {} layers can be imported",
                keys.where(), key, keys.shown(key), why, value.dump(), model.num_layers);
    };
    const char* full = "every layer attends to all positions before";
    keys.only("use_sliding_window", {false}, full);
    if (keys.has("use_sliding_window"))
        keys.ignore("sliding_window");  // the window is off, so its width does not matter
    else
        keys.only("sliding_window", {false}, full);
    keys.ignore("max_window_layers");  // belongs to a sliding window
    require_all("layer_types", "full_attention", full);
    require_all("no_rope_layers", 1, "every layer rotates positions");
}

/// Checks the number format of the model; the files give the format of each tensor.
void check_types(const ConfigKeys& keys) {
    std::string first;
    for (const char* key : {"torch_dtype", "dtype"}) {
        if (!keys.has(key)) continue;
        const json& value = keys.value(key);
        std::string name = value.is_string() ? value.get<std::string>() : "";
        if (name.starts_with("torch.")) name = name.substr(6);
        require(name == "float32" || name == "bfloat16" || name == "float16" || name == "float64" ||
                    name == "auto",
                "{}: {} = {} is not supported (weights are read as they are); save the model in bfloat16 or "
                "float32",
                keys.where(), key, keys.shown(key));
        require(
            first.empty() || first == name,
            "{}: torch_dtype = {} and dtype = {} contradict each other (both are the model's number format); "
            "correct the file",
            keys.where(), first, name);
        first = name;
    }
    for (const char* key : {"quantization_config", "quantization", "compression_config"})
        require(!keys.has(key),
                "{}: {} is not supported (weights are read as they are); save the model in bf16 or f32",
                keys.where(), key);
}

void read_sizes(const ConfigKeys& keys, ModelConfig& model) {
    model.vocab_size = keys.size("vocab_size");
    model.hidden_size = keys.size("hidden_size");
    model.ffn_size = keys.size("intermediate_size");
    model.num_layers = keys.size("num_hidden_layers");
    model.num_heads = keys.size("num_attention_heads");
    model.num_kv_heads = keys.size("num_key_value_heads", model.num_heads);
    model.tie_embeddings = keys.flag("tie_word_embeddings");
    model.norm_eps = keys.positive("rms_norm_eps").value_or(model.norm_eps);
    model.rope_theta = read_rope_theta(keys);
    keys.only("head_dim", {model.hidden_size / model.num_heads},
              "a head has hidden_size / num_attention_heads values");
    for (const char* key : {"norm_eps", "layer_norm_eps", "layer_norm_epsilon"})
        keys.only(key, {model.norm_eps}, "LLaMA takes rms_norm_eps");
    keys.only("num_kv_heads", {model.num_kv_heads}, "LLaMA takes num_key_value_heads");
}

}  // namespace

LlamaModel read_llama_config(const std::string& directory) {
    const std::string path = directory + "/config.json";
    const json config = read_json_object(path);
    const ConfigKeys keys(config, "`" + path + "`");
    check_kind(keys);
    LlamaModel result;
    read_sizes(keys, result.model);
    check_neutral(keys, result.model);
    check_layers(keys, result.model);
    check_types(keys);
    result.max_positions =
        keys.size("max_position_embeddings", keys.size("max_sequence_length", result.max_positions));
    for (const char* key : harmless_keys) keys.ignore(key);
    keys.refuse_others();
    return result;
}

SpecialTokens read_special_tokens(const std::string& directory) {
    SpecialTokens result;
    for (const char* name : {"config.json", "generation_config.json"}) {
        const std::string path = directory + "/" + name;
        if (!exists_at(path)) continue;
        const json config = read_json_object(path);
        const ConfigKeys keys(config, "`" + path + "`");
        const auto ids = [&](const char* key) {
            const json& value = keys.value(key);
            const json list = value.is_array() ? value : json::array({value});
            for (const json& id : list)
                require(id.is_number_integer(), "{}: {} = {} is not the id of a token; correct the file",
                        keys.where(), key, keys.shown(key));
            return list.get<std::vector<std::int64_t>>();
        };
        if (keys.has("bos_token_id"))
            if (const auto begin = ids("bos_token_id"); begin.size() == 1) result.begin = begin[0];
        if (keys.has("eos_token_id")) result.ends = ids("eos_token_id");
    }
    return result;
}

}  // namespace switchyard
