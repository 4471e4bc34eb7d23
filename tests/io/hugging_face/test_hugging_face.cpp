// config.json and adapter_config.json: what is written is read back, and every model that this program does
// not compute is refused with the name of the key.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "io/hugging_face/hugging_face.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using test::message_of;
using test::TemporaryDirectory;

ModelConfig some_model() {
    ModelConfig model;
    model.vocab_size = 53;
    model.hidden_size = 24;
    model.num_layers = 3;
    model.num_heads = 6;
    model.num_kv_heads = 2;
    model.ffn_size = 37;
    model.tie_embeddings = true;
    model.rope_theta = 12345.678;
    model.norm_eps = 1.0 / 3e5;
    return model;
}

class HuggingFace : public ::testing::Test {
  protected:
    LlamaModel read(const json& config) {
        folder_.write("config.json", config.dump());
        return read_llama_config(folder_.path());
    }
    std::string error_with(const std::string& key, const json& value) {
        json config = good_;
        config[key] = value;
        return message_of<UserError>([&] { read(config); });
    }
    TemporaryDirectory folder_;
    json good_ = json::parse(llama_config(some_model(), {512, DType::bf16, 1, 7}).dump());
};

TEST_F(HuggingFace, ConfigurationComesBack) {
    const LlamaModel back = read(good_);
    const ModelConfig expected = some_model();
    EXPECT_EQ(back.max_positions, 512);
    EXPECT_EQ(back.model.vocab_size, expected.vocab_size);
    EXPECT_EQ(back.model.hidden_size, expected.hidden_size);
    EXPECT_EQ(back.model.num_layers, expected.num_layers);
    EXPECT_EQ(back.model.num_heads, expected.num_heads);
    EXPECT_EQ(back.model.num_kv_heads, expected.num_kv_heads);
    EXPECT_EQ(back.model.ffn_size, expected.ffn_size);
    EXPECT_TRUE(back.model.tie_embeddings);
    EXPECT_EQ(back.model.rope_theta, expected.rope_theta);
    EXPECT_EQ(back.model.norm_eps, expected.norm_eps);
    EXPECT_EQ(good_["dtype"], "bfloat16");
    EXPECT_EQ(good_["torch_dtype"], "bfloat16");
    EXPECT_EQ(good_["head_dim"], 4);
    EXPECT_EQ(good_["eos_token_id"], 7);
    EXPECT_TRUE(json::parse(llama_config(some_model(), {}).dump())["eos_token_id"].is_null());
}

TEST_F(HuggingFace, OlderAndNewerSpellings) {
    for (const char* left_out : {"rope_theta", "rope_parameters", "rope_scaling", "head_dim", "hidden_act",
                                 "architectures", "attention_bias", "torch_dtype"}) {
        json config = good_;
        config.erase(left_out);
        EXPECT_EQ(read(config).model.rope_theta, some_model().rope_theta) << left_out;
        config[left_out] = nullptr;
        EXPECT_EQ(read(config).model.rope_theta, some_model().rope_theta) << left_out;
    }
    json bare = good_;  // as for the first LLaMA: no theta, no key-value heads
    for (const char* left_out : {"rope_theta", "rope_parameters", "num_key_value_heads",
                                 "tie_word_embeddings", "rms_norm_eps", "max_position_embeddings"})
        bare.erase(left_out);
    const LlamaModel old = read(bare);
    EXPECT_EQ(old.model.rope_theta, 10000);
    EXPECT_EQ(old.model.num_kv_heads, 6);
    EXPECT_FALSE(old.model.tie_embeddings);
    EXPECT_EQ(old.model.norm_eps, 1e-6);
    EXPECT_EQ(old.max_positions, 2048);
    good_["rope_scaling"] = {{"type", "default"}};
    EXPECT_EQ(read(good_).model.rope_theta, some_model().rope_theta);
}

/// Keys written by LlamaConfig.to_dict() of transformers 4.28, 4.46 and 5.24, nulls included.
TEST_F(HuggingFace, test_finding_15_every_key_of_transformers_is_accepted) {
    const char* const v4 = R"({"return_dict": true, "output_hidden_states": false, "output_attentions": false,
        "torchscript": false, "torch_dtype": "float16", "use_bfloat16": false, "tf_legacy_loss": false,
        "pruned_heads": {}, "tie_word_embeddings": false, "chunk_size_feed_forward": 0, "is_encoder_decoder": false,
        "is_decoder": false, "cross_attention_hidden_size": null, "add_cross_attention": false,
        "tie_encoder_decoder": false, "max_length": 20, "min_length": 0, "do_sample": false, "early_stopping": false,
        "num_beams": 1, "num_beam_groups": 1, "diversity_penalty": 0.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
        "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0,
        "encoder_no_repeat_ngram_size": 0, "bad_words_ids": null, "num_return_sequences": 1, "output_scores": false,
        "return_dict_in_generate": false, "forced_bos_token_id": null, "forced_eos_token_id": null,
        "remove_invalid_values": false, "exponential_decay_length_penalty": null, "suppress_tokens": null,
        "begin_suppress_tokens": null, "architectures": ["LLaMAForCausalLM"], "finetuning_task": null,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1},
        "tokenizer_class": null, "prefix": null, "bos_token_id": 1, "pad_token_id": -1, "eos_token_id": 2,
        "sep_token_id": null, "decoder_start_token_id": null, "task_specific_params": null, "problem_type": null,
        "_name_or_path": "decapoda", "_attn_implementation_autoset": false, "transformers_version": "4.46.0",
        "model_type": "llama", "vocab_size": 53, "max_position_embeddings": 512, "hidden_size": 24,
        "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": null,
        "hidden_act": "silu", "initializer_range": 0.02, "rms_norm_eps": 1e-06, "pretraining_tp": 1,
        "use_cache": true, "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false,
        "attention_dropout": 0.0, "mlp_bias": false, "head_dim": 4, "max_sequence_length": 2048,
        "num_labels": 2, "xla_device": null, "quantization_config": null, "sliding_window": null})";
    const char* const v5 =
        R"({"transformers_version": "5.24.0", "architectures": null, "output_hidden_states": false,
        "return_dict": true, "dtype": "bfloat16", "chunk_size_feed_forward": 0, "is_encoder_decoder": false,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "problem_type": null,
        "vocab_size": 53, "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "hidden_act": "silu", "max_position_embeddings": 2048,
        "initializer_range": 0.02, "rms_norm_eps": 1e-06, "use_cache": true, "pad_token_id": null, "bos_token_id": 1,
        "eos_token_id": [2, 7], "pretraining_tp": 1, "tie_word_embeddings": false,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}, "attention_bias": false,
        "attention_dropout": 0.1, "mlp_bias": false, "head_dim": 4, "_name_or_path": "", "model_type": "llama",
        "output_attentions": false})";
    const LlamaModel old = read(json::parse(v4)), current = read(json::parse(v5));
    EXPECT_EQ(old.model.num_kv_heads, 6);
    EXPECT_EQ(old.max_positions, 512);
    EXPECT_EQ(current.model.num_kv_heads, 2);
    EXPECT_EQ(current.model.rope_theta, 500000);
}

TEST_F(HuggingFace, test_finding_15_what_changes_nothing_is_accepted) {
    const std::vector<std::pair<const char*, json>> neutral{
        {"architectures", json::array()},
        {"architectures", {"LLaMAForCausalLM"}},
        {"model_type", nullptr},
        {"rope_scaling", {{"rope_type", "linear"}, {"factor", 1}}},
        {"rope_scaling", {{"type", "llama3"}, {"factor", 1.0}, {"low_freq_factor", 1}}},
        {"rope_scaling", {{"type", "default"}, {"rope_type", "default"}, {"rope_theta", nullptr}}},
        {"rope_scaling", json::object()},
        {"partial_rotary_factor", 1},
        {"pretraining_tp", 2},
        {"hidden_act", "swish"},
        {"attention_dropout", 0.3},
        {"sliding_window", nullptr},
        {"layer_types", {"full_attention", "full_attention", "full_attention"}},
        {"attention_multiplier", 0.5},
        {"embedding_multiplier", 1},
        {"logits_scaling", 1.0},
        {"num_local_experts", 0},
        {"norm_eps", some_model().norm_eps},
        {"torch_dtype", "torch.bfloat16"},
        {"auto_map", {{"AutoTokenizer", "a.B"}}},
        {"some_feature", nullptr},
    };
    for (const auto& [key, value] : neutral) {
        json config = good_;
        config[key] = value;
        const LlamaModel back = read(config);
        EXPECT_EQ(back.model.rope_theta, some_model().rope_theta) << key << " = " << value;
        EXPECT_EQ(back.model.norm_eps, some_model().norm_eps) << key << " = " << value;
    }
    good_["use_sliding_window"] = false;
    good_["sliding_window"] = 4096;
    read(good_);
}

TEST_F(HuggingFace, test_finding_04_rope_theta_is_read_wherever_it_stands) {
    good_.erase("rope_theta");
    good_.erase("rope_parameters");
    for (const char* place : {"rope_scaling", "rope_parameters"})
        for (const char* type : {"rope_type", "type"}) {
            json config = good_;
            config[place] = {{type, "default"}, {"rope_theta", 500000}};
            EXPECT_EQ(read(config).model.rope_theta, 500000) << place << " " << type;
            config["rope_theta"] = 500000.0;
            EXPECT_EQ(read(config).model.rope_theta, 500000) << place << " " << type;
            config["rope_theta"] = 10000.0;
            EXPECT_CONTAINS(message_of<UserError>([&] { read(config); }),
                            fmt::format("rope_theta = 10000 and {}.rope_theta = 500000 contradict", place));
        }
    good_["rope_scaling"] = {{"rope_theta", 10000}};
    good_["rope_parameters"] = {{"rope_theta", 20000}};
    EXPECT_CONTAINS(message_of<UserError>([&] { read(good_); }), "contradict each other");
}

TEST_F(HuggingFace, test_finding_04_keys_that_change_the_function_are_refused) {
    const std::vector<std::pair<const char*, json>> changing{
        {"sliding_window", 64},
        {"use_sliding_window", true},
        {"layer_types", {"full_attention", "sliding_attention", "full_attention"}},
        {"layer_types", {"full_attention"}},
        {"no_rope_layers", {1, 1, 0}},
        {"attention_multiplier", 0.25},
        {"embedding_multiplier", 12.0},
        {"residual_multiplier", 0.22},
        {"logits_scaling", 16},
        {"logit_scale", 0.0625},
        {"final_logit_softcapping", 30.0},
        {"num_experts", 8},
        {"num_local_experts", 8},
        {"use_qk_norm", true},
        {"qkv_bias", true},
        {"is_causal", false},
        {"is_encoder_decoder", true},
        {"pruned_heads", {{"0", {1}}}},
        {"rope_interleaved", true},
        {"rotary_pct", 0.25},
        {"norm_eps", 1e-3},
        {"rotary_base", 500000},
        {"num_kv_heads", 6},
        {"dtype", "float8_e4m3fn"},
        {"dtype", "float16"},  // contradicts torch_dtype = bfloat16
        {"quantization", {{"bits", 4}}},
        {"auto_map", {{"AutoModelForCausalLM", "modeling.Mine"}}},
        {"a_key_of_next_year", 0.5},
        {"use_something", false},
    };
    for (const auto& [key, value] : changing) EXPECT_CONTAINS(error_with(key, value), key);
    EXPECT_CONTAINS(error_with("rope_scaling", {{"rope_type", "default"}, {"mrope_section", {1, 1}}}),
                    "rope_scaling: \"mrope_section\" = [1,1] is not known");
    EXPECT_CONTAINS(
        error_with("rope_scaling", {{"rope_type", "linear"}, {"factor", 1}, {"attention_factor", 2}}),
        "attention_factor = 2");
    good_["first"] = 1;
    EXPECT_CONTAINS(error_with("second", "x"), "\"first\" = 1, \"second\" = \"x\" are not known");
}

TEST_F(HuggingFace, OtherModelsAreRefusedByName) {
    const json yarn{{"rope_type", "yarn"}, {"rope_theta", 12345.678}, {"factor", 4.0}};
    EXPECT_CONTAINS(error_with("rope_parameters", yarn), "rope_parameters: rope_type = \"yarn\"");
    EXPECT_CONTAINS(error_with("rope_scaling", {{"type", "linear"}, {"factor", 2}}),
                    "rope_scaling: type = \"linear\"");
    EXPECT_CONTAINS(error_with("rope_scaling", {{"factor", 2}}), "rope_scaling: factor");
    EXPECT_CONTAINS(error_with("rope_scaling", 2), "rope_scaling = 2 is not an object");
    EXPECT_CONTAINS(error_with("rope_parameters", {{"partial_rotary_factor", 0.5}}), "partial_rotary_factor");
    EXPECT_CONTAINS(error_with("rope_parameters", {{"rope_theta", -1}}), "rope_theta = -1");
    EXPECT_CONTAINS(error_with("partial_rotary_factor", 0.5), "partial_rotary_factor = 0.5");
    EXPECT_CONTAINS(error_with("rope_theta", 500), "contradict each other");
    EXPECT_CONTAINS(error_with("attention_bias", true), "attention_bias = true");
    EXPECT_CONTAINS(error_with("mlp_bias", true), "mlp_bias = true");
    EXPECT_CONTAINS(error_with("hidden_act", "gelu"), "hidden_act = \"gelu\"");
    EXPECT_CONTAINS(error_with("model_type", "mistral"), "model_type = \"mistral\"");
    good_["architectures"] = json::array();
    EXPECT_CONTAINS(error_with("model_type", nullptr), "lacks model_type");
    EXPECT_CONTAINS(error_with("architectures", {"LlamaForSequenceClassification"}), "architectures");
    EXPECT_CONTAINS(error_with("quantization_config", {{"quant_method", "gptq"}}), "quantization_config");
    EXPECT_CONTAINS(error_with("head_dim", 8), "head_dim = 8");
}

TEST_F(HuggingFace, ValuesAreChecked) {
    EXPECT_CONTAINS(error_with("hidden_size", nullptr), "lacks hidden_size");
    for (const json& bad : {json(0), json(-8), json(8.0), json("8"), json(1ull << 31), json::array({8})})
        EXPECT_CONTAINS(error_with("vocab_size", bad), "vocab_size = ");
    for (const json& bad : {json(0), json(-1e-6), json("1e-6"), json(true)})
        EXPECT_CONTAINS(error_with("rms_norm_eps", bad), "rms_norm_eps = ");
    EXPECT_CONTAINS(error_with("tie_word_embeddings", "yes"), "tie_word_embeddings = \"yes\"");
    EXPECT_CONTAINS(error_with("num_attention_heads", 0), "num_attention_heads = 0");
    EXPECT_LT(error_with("hidden_act", std::string(1 << 20, 'a')).size(), 1000u);
    folder_.write("config.json", "{\"model_type\":\"llama\",\"model_type\":\"llama\"}");
    EXPECT_CONTAINS(message_of<UserError>([&] { read_llama_config(folder_.path()); }), "twice");
    const TemporaryDirectory empty;
    EXPECT_CONTAINS(message_of<UserError>([&] { read_llama_config(empty.path()); }), "config.json");
}

TEST_F(HuggingFace, AlphaGivesTheScaleExactly) {
    for (int r = 1; r <= 300; ++r)
        for (const double alpha : {1.0, 16.0, 32.0, 0.3, 1e-3 / 7}) {
            const double scale = alpha / r;
            const ordered_json config = peft_config({{"model.layers.0.mlp.up_proj", r, scale}}, "base");
            ASSERT_EQ(config["lora_alpha"].get<double>() / r, scale) << alpha << " / " << r;
            ASSERT_EQ(config["r"], r);
        }
}

TEST_F(HuggingFace, ModulesMayDiffer) {
    const ordered_json config = peft_config({{"model.layers.0.mlp.up_proj", 4, 0.25},
                                             {"model.layers.1.mlp.up_proj", 8, 0.125},
                                             {"model.layers.1.self_attn.q_proj", 4, 0.5}},
                                            "base");
    EXPECT_EQ(config["target_modules"], (std::vector<std::string>{"q_proj", "up_proj"}));
    EXPECT_EQ(config["r"], 4);
    EXPECT_EQ(config["lora_alpha"], 1);
    EXPECT_EQ(config["rank_pattern"], (ordered_json{{"model.layers.1.mlp.up_proj", 8}}));
    EXPECT_EQ(config["alpha_pattern"], (ordered_json{{"model.layers.1.self_attn.q_proj", 2}}));
    EXPECT_EQ(config["use_dora"], false);
    EXPECT_EQ(peft_config({{"model.layers.0.mlp.up_proj", 4, 0.25, true}}, "base")["use_dora"], true);
    EXPECT_EQ(peft_name("model.layers.1.mlp.up_proj", "lora_magnitude"),
              "base_model.model.model.layers.1.mlp.up_proj.lora_magnitude_vector");
    EXPECT_EQ(peft_name("model.layers.1.mlp.up_proj", "lora_A"),
              "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight");
}

}  // namespace
}  // namespace switchyard
