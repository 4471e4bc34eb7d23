// Ten steps of a tiny model against PyTorch in f64 (tests/golden/llama_f64.h5, made by tools/make_golden.py):
// loss and gradient norm of every step, every gradient of step 1, sign projections of every later gradient.
// BACK ENDS: all
#include <gtest/gtest.h>

#include "support/golden_run.hpp"

namespace switchyard {
namespace {

using testing::deviation;
using testing::golden_tolerance;
using testing::GoldenFile;

class GoldenTest : public ::testing::TestWithParam<bool> {};

TEST_P(GoldenTest, TenStepsEqualPyTorch) {
    const bool tied = GetParam();
    const std::string group = tied ? "/tied" : "";
    const GoldenFile golden(SWITCHYARD_SOURCE_DIR "/tests/golden/llama_f64.h5");
    const Topology topology = Topology::imaginary(1, 1, 0);
    testing::TinyRun run(
        testing::golden_config(
            golden, golden,
            {"--method.name=full", std::string("--model.tie_embeddings=") + (tied ? "true" : "false")}),
        topology);
    TrainState& s = run.state();
    testing::set_golden_weights(s, golden);
    const int num_projections = static_cast<int>(golden.number("num_projections"));
    const int first_projected = tied ? 1 : 2;
    testing::expect_golden_steps(run, golden, golden, group, [&](int step) {
        for (Parameter* p : s.model.parameters()) {
            const std::string& name = p->shard.name;
            const std::vector<double> gradient = testing::valid_part(p->shard, p->gradient);
            if (step == 1 && (!tied || name == "model.embed_tokens.weight")) {
                EXPECT_LT(deviation(gradient, golden.read<double>(group + "/gradients/" + name)),
                          golden_tolerance)
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
                EXPECT_NEAR(sum, expected[(step - first_projected) * num_projections + k],
                            golden_tolerance * size)
                    << name << " step " << step;
            }
        }
    });
}

INSTANTIATE_TEST_SUITE_P(Heads, GoldenTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "tied" : "untied"; });

}  // namespace
}  // namespace switchyard
