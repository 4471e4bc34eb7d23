// Ten steps of a tiny model against PyTorch in f64 (tests/golden/llama_f64.h5, made by tools/make_golden.py):
// loss and gradient norm of every step, every gradient of step 1, sign projections of every later gradient.
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

Config golden_config(const GoldenFile& golden, bool tied) {
    std::vector<std::string> arguments{
        "--method.name=full",       "--run.dtype=f64",
        "--data.tokens=golden",     "--optim.schedule=constant",
        "--optim.warmup_steps=0",   "--optim.dense_lr=0",
        "--optim.decay_norms=true", std::string("--model.tie_embeddings=") + (tied ? "true" : "false")};
    const auto add = [&](const std::string& key, const std::string& attribute) {
        arguments.push_back(fmt::format("--{}={}", key, golden.number(attribute)));
    };
    for (const char* key :
         {"vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "ffn_size"})
        add(std::string("model.") + key, key);
    for (const char* key : {"lr", "beta1", "beta2", "eps", "weight_decay", "clip_norm"})
        add(std::string("optim.") + key, key);
    add("data.seq_len", "seq_len");
    add("data.micro_batch", "batch");
    add("data.global_batch", "batch");
    Config config = parse_config("", "", arguments, method_options()).config;
    resolve_auto(config);
    return config;
}

constexpr double tolerance = 1e-9;

class GoldenTest : public ::testing::TestWithParam<bool> {};

TEST_P(GoldenTest, TenStepsEqualPyTorch) {
    const bool tied = GetParam();
    const std::string group = tied ? "/tied" : "";
    const GoldenFile golden(SWITCHYARD_SOURCE_DIR "/tests/golden/llama_f64.h5");
    const Config config = golden_config(golden, tied);
    const Topology topology = Topology::imaginary(1, 1, 0);
    testing::TinyRun run(config, topology);
    TrainState& s = run.state();
    for (Parameter* p : s.model.parameters())
        testing::set_valid_part(p->shard, p->value, golden.read<double>("/weights/" + p->shard.name));
    s.optimizer.masters_from_values();
    s.model.weights_changed();

    const auto tokens = golden.read<std::int32_t>("/tokens"), targets = golden.read<std::int32_t>("/targets");
    const auto losses = golden.read<double>(group + "/loss"),
               norms = golden.read<double>(group + "/grad_norm");
    const std::int64_t n = config.data.micro_batch * config.data.seq_len;
    const int num_projections = static_cast<int>(golden.number("num_projections"));
    const int first_projected = tied ? 1 : 2;
    for (int step = 1; step <= 10; ++step) {
        kernels::upload(tokens.data() + (step - 1) * n, s.model.batch().tokens);
        kernels::upload(targets.data() + (step - 1) * n, s.model.batch().targets);
        const auto valid_targets = std::count_if(targets.begin() + (step - 1) * n, targets.begin() + step * n,
                                                 [](std::int32_t t) { return t >= 0; });
        const double scale = 1.0 / static_cast<double>(valid_targets);
        s.optimizer.zero_gradients();
        s.model.forward(scale);
        double loss = 0;
        kernels::download(s.model.loss(), &loss);
        EXPECT_NEAR(loss * scale, losses[step - 1], tolerance * losses[step - 1]) << "step " << step;
        s.model.backward();
        for (Parameter* p : s.model.parameters()) {
            const std::string& name = p->shard.name;
            const std::vector<double> gradient = testing::valid_part(p->shard, p->gradient);
            if (step == 1 && (!tied || name == "model.embed_tokens.weight")) {
                EXPECT_LT(deviation(gradient, golden.read<double>(group + "/gradients/" + name)), tolerance)
                    << name;
            }
            if (step < first_projected) continue;
            const auto expected = golden.read<double>(group + "/projections/" + name);
            for (int k = 0; k < num_projections; ++k) {
                double sum = 0, size = 0;
                const std::uint64_t key = stream_key(static_cast<std::uint64_t>(golden.number("seed")), name);
                for (std::size_t i = 0; i < gradient.size(); ++i) {
                    sum += philox(key, i, k)[0] & 1 ? -gradient[i] : gradient[i];
                    size += std::abs(gradient[i]);
                }
                EXPECT_NEAR(sum, expected[(step - first_projected) * num_projections + k], tolerance * size)
                    << name << " step " << step;
            }
        }
        s.optimizer.measure_gradients();
        s.optimizer.decide_clip();
        const double norm = s.optimizer.gradient_norm(s.optimizer.scalars().read());
        EXPECT_NEAR(norm, norms[step - 1], tolerance * norms[step - 1]) << "step " << step;
        s.optimizer.update(1.0);
        s.model.weights_changed();
    }
}

INSTANTIATE_TEST_SUITE_P(Heads, GoldenTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "tied" : "untied"; });

}  // namespace
}  // namespace switchyard
