// RANKS: 1 2 3 4
// Muon on every layout against a reference on one process (reference/muon.hpp) over 100 steps in f64:
// weights, moments and norms. Wide, tall and square matrices.
#include <gtest/gtest.h>

#include "reference/muon.hpp"
#include "support/dense_model.hpp"
#include "support/reference_run.hpp"

namespace switchyard {
namespace {

using reference::MuonMatrix;
using testing::tiny_config;

void expect_reference(std::vector<std::string> arguments, int steps) {
    arguments.insert(arguments.begin(),
                     {"--method.name=muon", "--model.num_layers=1", "--data.seq_len=4", "--optim.eps=1e-4",
                      "--optim.schedule=constant", "--optim.warmup_steps=0", "--data.micro_batch=12"});
    const Config config = tiny_config(arguments);
    const auto make = [&](const std::string&, int m, int n) {
        MuonMatrix x(m, n);
        x.momentum = option_real(config.method, "momentum");
        x.nesterov = option_boolean(config.method, "nesterov");
        x.iterations = static_cast<int>(option_integer(config.method, "iterations"));
        x.as_adamw = option_text(config.method, "update_scale") == "match_rms_adamw";
        return x;
    };
    testing::expect_reference<MuonMatrix>(config, steps, make, 1e-10);
}

TEST(Muon, EqualsOneProcess) {
    expect_reference({}, 100);
}

/// An odd number of iterations leaves the result in other memory than an even one.
TEST(Muon, OtherSettingsEqualOneProcess) {
    expect_reference({"--method.momentum=0.8", "--method.nesterov=false", "--method.iterations=4",
                      "--method.update_scale=original", "--model.recompute=true"},
                     20);
}

/// Fewer rows than columns in k and v; the head is the embedding.
TEST(Muon, GroupedQueriesEqualOneProcess) {
    expect_reference({"--model.num_heads=24", "--model.hidden_size=48", "--model.num_kv_heads=12",
                      "--model.tie_embeddings=true", "--method.iterations=2"},
                     10);
}

}  // namespace
}  // namespace switchyard
