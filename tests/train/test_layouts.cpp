// RANKS: 2 3 4
// Every factorisation of the ranks against one process: the same step-0 weights bit for bit, the same losses
// over 20 steps, for every method, with switches, clipping, weight decay and accumulation in play.
#include <gtest/gtest.h>

#include <cmath>

#include "core/processor.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "support/layouts.hpp"
#include "support/serial_losses.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using testing::for_each_layout;
using testing::serial;
using testing::tiny_config;
using testing::TinyRun;

std::vector<std::string> method_arguments(const std::string& method) {
    if (method == "relora")  // three merges; with a larger alpha and rate, rounding grows from step to step
        return {"--method.name=relora", "--method.merge_interval=6", "--method.restart_warmup=2",
                "--method.alpha=6", "--optim.lr=0.004"};
    if (method == "galore") return {"--method.name=galore", "--method.update_interval=7", "--optim.eps=1e-4"};
    if (method == "apollo") return {"--method.name=apollo", "--method.update_interval=7", "--optim.eps=1e-4"};
    if (method == "riemannian" || method == "melora")  // at a larger rate rounding grows, as for relora
        return {"--method.name=" + method, "--method.alpha=6", "--optim.eps=1e-4", "--optim.lr=0.004"};
    if (method == "loft") return {"--method.name=loft", "--optim.eps=1e-4", "--optim.lr=0.004"};
    if (method == "flatlora")
        return {"--method.name=flatlora", "--method.noise=0.5", "--method.alpha=6", "--optim.lr=0.004"};
    if (method == "pclora")  // without its base in the last steps
        return {"--method.name=pclora", "--method.decay_steps=14", "--method.alpha=6", "--optim.lr=0.004"};
    if (method != "switchlora") return {"--method.name=" + method};
    return {"--method.name=switchlora", "--method.switch_interval=6", "--method.freeze_steps=3",
            "--method.switch_ratio=1"};
}

void expect_same_losses(const std::string& what, const std::vector<std::string>& arguments,
                        double tolerance) {
    if (backend::processor().is_gpu)
        GTEST_SKIP() << "tests/regression/test_back_ends.py compares every layout with the CPU's";
    const Config config = tiny_config(arguments);
    const std::vector<double> expected = testing::serial_losses(config, 20);
    for_each_layout(config, [&](const Config& here, const Topology& topology) {
        const std::vector<double> losses = TinyRun(here, topology).losses(20);
        for (int step = 0; step < 20; ++step)
            EXPECT_NEAR(losses[step], expected[step], tolerance * expected[step])
                << what << ", step " << step;
        EXPECT_LT(losses[19], losses[0]) << "nothing learned: the comparison shows nothing";
    });
}

class Layouts : public ::testing::TestWithParam<const char*> {};

TEST_P(Layouts, LossesEqualOneProcessInF64) {
    expect_same_losses(GetParam(), method_arguments(GetParam()), 1e-11);
}

TEST_P(Layouts, LossesEqualOneProcessInF32) {
    auto arguments = method_arguments(GetParam());
    arguments.push_back("--run.dtype=f32");
    expect_same_losses(GetParam(), arguments, 5e-6);
}

TEST_P(Layouts, ShardedFrozenWeightsAndRecomputation) {
    auto arguments = method_arguments(GetParam());
    arguments.insert(arguments.end(), {"--parallel.shard_frozen=true", "--model.recompute=true"});
    expect_same_losses(GetParam(), arguments, 1e-11);
}

/// Sum over ranks of the checksums of all values as they are on this layout, replicas counted once.
std::uint64_t state_checksum(const Config& config, const Topology& topology) {
    TinyRun run(config, topology);
    TrainState& s = run.state();
    std::map<std::string, std::uint64_t> by_name;
    const auto collect = [&](const Shard& shard, Tensor values, bool counted) {
        // Norms of rows that are cut over tp are sums in another order.
        if (shard.name.ends_with(".lora_magnitude")) return;
        by_name[shard.name] += counted ? checksum(shard, values) : 0;
    };
    const bool first_dp = topology.dp_rank() == 0, first = first_dp && topology.tp_rank() == 0;
    for (Parameter* p : s.model.parameters())
        collect(p->shard, p->value, p->tp_gradient == TpGradient::own ? first_dp : first);
    for (Linear* linear : s.model.linears())
        if (linear->frozen()) collect(linear->shard(), linear->base().words.hi, first_dp);
    std::uint64_t total = 0;
    for (const auto& [name, part] : by_name)
        total += mix64(all_reduce_sum_u64(topology.world, part) ^ stream_key(0, name));
    return total;
}

TEST_P(Layouts, StepZeroIsBitIdentical) {
    for (const char* dtype : {"f64", "f32", "bf16"}) {
        auto arguments = method_arguments(GetParam());
        arguments.push_back(std::string("--run.dtype=") + dtype);
        const Config config = tiny_config(arguments);
        const Topology one = serial();
        const std::uint64_t expected = state_checksum(config, one);
        for_each_layout(config, [&](const Config& here, const Topology& topology) {
            EXPECT_EQ(state_checksum(here, topology), expected) << dtype;
        });
    }
}

INSTANTIATE_TEST_SUITE_P(Methods, Layouts,
                         ::testing::Values("full", "lora", "switchlora", "relora", "dora", "sora", "galore",
                                           "muon", "apollo", "riemannian", "melora", "flatlora", "loft",
                                           "pclora"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace switchyard
