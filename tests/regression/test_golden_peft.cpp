// Ten steps of a tiny model with PEFT's LoRA and DoRA in f64 (tests/golden/peft_f64.h5, made by
// tools/make_golden_peft.py from the weights and tokens of llama_f64.h5): loss and gradient norm of every
// step, and what is trained beside the weights after the last one.
// BACK ENDS: all
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/golden_file.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using testing::deviation;
using testing::GoldenFile;
using testing::set_valid_part;
using testing::valid_part;

Config config_of(const std::string& method, const GoldenFile& model, const GoldenFile& adapters) {
    std::vector<std::string> arguments{"--method.name=" + method,     "--run.dtype=f64",
                                       "--data.tokens=golden",        "--optim.schedule=constant",
                                       "--optim.warmup_steps=0",      "--optim.dense_lr=0",
                                       "--optim.decay_norms=true",    "--data.micro_batch=3",
                                       "--data.global_batch=3"};
    const auto add = [&](const GoldenFile& file, const std::string& key, const std::string& attribute) {
        arguments.push_back(fmt::format("--{}={}", key, file.number(attribute)));
    };
    for (const char* key :
         {"vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "ffn_size"})
        add(model, std::string("model.") + key, key);
    for (const char* key : {"lr", "beta1", "beta2", "eps", "weight_decay", "clip_norm"})
        add(adapters, std::string("optim.") + key, key);
    add(model, "data.seq_len", "seq_len");
    add(adapters, "method.rank", "low_rank");
    add(adapters, "method.alpha", "alpha");
    Config config = parse_config("", "", arguments, method_options()).config;
    resolve_auto(config);
    return config;
}

/// The factor (r, m) or (r, n) as the file has it: B is (m, r) there.
std::vector<double> as_stored(const Parameter& p) {
    const std::vector<double> values = valid_part(p.shard, p.value);
    if (!p.transposed) return values;
    std::vector<double> turned(values.size());
    for (std::int64_t i = 0; i < p.shard.rows; ++i)
        for (std::int64_t j = 0; j < p.shard.cols; ++j)
            turned[j * p.shard.rows + i] = values[i * p.shard.cols + j];
    return turned;
}

class GoldenPeft : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenPeft, TenStepsEqualPeft) {
    constexpr double tolerance = 1e-9;
    const std::string method = GetParam();
    const GoldenFile model(SWITCHYARD_SOURCE_DIR "/tests/golden/llama_f64.h5"),
        adapters(SWITCHYARD_SOURCE_DIR "/tests/golden/peft_f64.h5");
    const Config config = config_of(method, model, adapters);
    const Topology topology = Topology::imaginary(1, 1, 0);
    testing::TinyRun run(config, topology);
    TrainState& s = run.state();
    const auto weight = [&](const std::string& name) { return model.read<double>("/weights/" + name); };
    for (Linear* linear : s.model.linears())  // words of f64 are the values themselves
        set_valid_part(linear->shard(), linear->base().words.hi, weight(linear->shard().name));
    for (Parameter* p : s.model.parameters())
        if (p->shard.name.ends_with(".weight")) set_valid_part(p->shard, p->value, weight(p->shard.name));
    s.method->initialise(s.context);
    for (Parameter* p : s.model.parameters()) {
        const std::string& name = p->shard.name;
        if (name.ends_with(".lora_A"))
            set_valid_part(p->shard, p->value,
                           adapters.read<double>("/lora_A/" + name.substr(0, name.size() - 7)));
    }
    s.optimizer.masters_from_values();
    s.weights_changed();

    const auto tokens = model.read<std::int32_t>("/tokens"), targets = model.read<std::int32_t>("/targets");
    const auto losses = adapters.read<double>("/" + method + "/loss"),
               norms = adapters.read<double>("/" + method + "/grad_norm");
    const std::int64_t n = config.data.micro_batch * config.data.seq_len;
    for (int step = 0; step < 10; ++step) {
        kernels::upload(tokens.data() + step * n, s.model.batch().tokens);
        kernels::upload(targets.data() + step * n, s.model.batch().targets);
        const auto valid_targets = std::count_if(targets.begin() + step * n, targets.begin() + (step + 1) * n,
                                                 [](std::int32_t t) { return t >= 0; });
        const double scale = 1.0 / static_cast<double>(valid_targets);
        s.optimizer.zero_gradients();
        s.model.forward(scale);
        double loss = 0;
        kernels::download(s.model.loss(), &loss);
        EXPECT_NEAR(loss * scale, losses[step], tolerance * losses[step]) << "step " << step;
        s.model.backward();
        s.method->reduce_gradients(s.optimizer);
        s.method->squared_gradient_norm(s.optimizer);
        s.optimizer.decide_clip();
        const double norm = s.optimizer.gradient_norm(s.optimizer.scalars().read());
        EXPECT_NEAR(norm, norms[step], tolerance * norms[step]) << "step " << step;
        s.method->update(s.optimizer, 1.0);
        s.optimizer.gather_values();
        ++s.step;
        s.weights_changed();
    }
    for (Parameter* p : s.model.parameters())
        if (p->role == ParameterRole::factor) {
            const auto expected = adapters.read<double>("/" + method + "/final/" + p->shard.name);
            EXPECT_LT(deviation(as_stored(*p), expected), tolerance) << p->shard.name;
        }
}

INSTANTIATE_TEST_SUITE_P(Methods, GoldenPeft, ::testing::Values("lora", "dora"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace switchyard
