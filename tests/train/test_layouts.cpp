// RANKS: 2 3 4
// Every factorisation of the ranks against one process: the same step-0 weights bit for bit, the same losses
// over 20 steps, for every method, with switches, clipping, weight decay and accumulation in play.
#include <gtest/gtest.h>

#include <cmath>

#include "core/processor.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "support/layouts.hpp"
#include "support/methods.hpp"
#include "support/serial_losses.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using testing::calm_settings;
using testing::for_each_layout;
using testing::serial;
using testing::tiny_config;
using testing::TinyRun;

void expect_same_losses(const std::string& what, const std::vector<std::string>& arguments,
                        double tolerance) {
    if (backend::processor().is_gpu)
        GTEST_SKIP() << "tests/regression/test_back_ends.py compares every layout with the CPU's";
    const Config config = tiny_config(arguments);
    const std::vector<double> expected = testing::serial_losses(config, 20);
    testing::for_each_layout_in_few_passes(config, [&](const Config& here, const Topology& topology) {
        const std::vector<double> losses = TinyRun(here, topology).losses(20);
        for (int step = 0; step < 20; ++step)
            EXPECT_NEAR(losses[step], expected[step], tolerance * expected[step])
                << what << ", step " << step;
        EXPECT_LT(losses[19], losses[0]) << "nothing learned: the comparison shows nothing";
    });
}

class Layouts : public ::testing::TestWithParam<std::string> {};

TEST_P(Layouts, LossesEqualOneProcessInF64) {
    expect_same_losses(GetParam(), calm_settings(GetParam(), 6), 1e-11);
}

TEST_P(Layouts, LossesEqualOneProcessInF32) {
    auto arguments = calm_settings(GetParam(), 6);
    arguments.push_back("--run.dtype=f32");
    expect_same_losses(GetParam(), arguments, 5e-6);
}

TEST_P(Layouts, ShardedFrozenWeightsAndRecomputation) {
    auto arguments = calm_settings(GetParam(), 6);
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
        auto arguments = calm_settings(GetParam(), 6);
        arguments.push_back(std::string("--run.dtype=") + dtype);
        const Config config = tiny_config(arguments);
        const Topology one = serial();
        const std::uint64_t expected = state_checksum(config, one);
        for_each_layout(config, [&](const Config& here, const Topology& topology) {
            EXPECT_EQ(state_checksum(here, topology), expected) << dtype;
        });
    }
}

INSTANTIATE_TEST_SUITE_P(Methods, Layouts, ::testing::ValuesIn(testing::all_methods()),
                         testing::name_of_method);

}  // namespace
}  // namespace switchyard
