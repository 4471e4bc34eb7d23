// config.json and adapter_config.json: what is written is read back, and every model that this program does
// not compute is refused by the name of the key.
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
    json good_ = json::parse(llama_config(some_model(), {512, DType::bf16, 7}).dump());
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
    json bare = good_;  // of the first LLaMA: no theta, no key-value heads
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

TEST_F(HuggingFace, OtherModelsAreRefusedByName) {
    const json yarn{{"rope_type", "yarn"}, {"rope_theta", 12345.678}, {"factor", 4.0}};
    EXPECT_CONTAINS(error_with("rope_parameters", yarn), "rope_parameters: rope_type = \"yarn\"");
    EXPECT_CONTAINS(error_with("rope_scaling", {{"type", "linear"}, {"factor", 2}}),
                    "rope_scaling: type = \"linear\"");
    EXPECT_CONTAINS(error_with("rope_scaling", {{"factor", 2}}), "rope_scaling: factor");
    EXPECT_CONTAINS(error_with("rope_scaling", 2), "rope_scaling is not an object");
    EXPECT_CONTAINS(error_with("rope_parameters", {{"partial_rotary_factor", 0.5}}), "partial_rotary_factor");
    EXPECT_CONTAINS(error_with("rope_parameters", {{"rope_theta", -1}}), "rope_theta = -1");
    EXPECT_CONTAINS(error_with("partial_rotary_factor", 0.5), "partial_rotary_factor = 0.5");
    EXPECT_CONTAINS(error_with("rope_theta", 500), "one of them is wrong");
    EXPECT_CONTAINS(error_with("attention_bias", true), "attention_bias = true");
    EXPECT_CONTAINS(error_with("mlp_bias", true), "mlp_bias = true");
    EXPECT_CONTAINS(error_with("hidden_act", "gelu"), "hidden_act = \"gelu\"");
    EXPECT_CONTAINS(error_with("model_type", "mistral"), "model_type = \"mistral\"");
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
    EXPECT_EQ(peft_name("model.layers.1.mlp.up_proj", "lora_A"),
              "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight");
}

}  // namespace
}  // namespace switchyard
