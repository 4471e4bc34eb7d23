// RANKS: 1 2 3 4
// What one switch changes and what it does not, observed between the hooks of a running step: the function,
// the state of the counterpart and its own, frozen slots, candidates and their owners.
#include <gtest/gtest.h>

#include "support/layouts.hpp"
#include "support/switch_observer.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace {

using testing::Observed;
using testing::Observer;
using testing::Side;
using testing::tiny_config;
using testing::TinyRun;
using testing::Tolerances;

/// 24 candidates per side; the frequency does not fall, so that laps are completed.
std::vector<std::string> arguments(std::vector<std::string> more) {
    more.insert(more.end(),
                {"--model.num_layers=1", "--data.seq_len=4", "--data.micro_batch=3", "--run.steps=60",
                 "--method.switch_interval=4", "--method.freeze_steps=2", "--method.switch_ratio=1000000"});
    return more;
}

int largest_micro_batch(const Topology& topology) {
    return 12 % (3 * topology.dp_size()) == 0 ? 3 : 2;
}

/// Runs enough steps for each candidate to become active. `visits`: the owners that each slot has had; 0:
/// unknown.
template <class Visits>
void observe(const Config& config, Tolerances tolerances, int steps, const Visits& visits) {
    testing::for_each_layout(config, [&](Config here, const Topology& topology) {
        here.data.micro_batch = largest_micro_batch(topology);
        TinyRun run(here, topology);
        Observer observer(run, tolerances);
        std::int64_t vectors = 0, reset = 0;
        for (int t = 0; t < steps; ++t) {
            const MethodReport report = run.step().method;
            vectors += report.vectors_switched;
            reset += report.moments_reset;
            EXPECT_EQ(report.residual_of.empty(), report.vectors_switched == 0);
            EXPECT_LE(report.residual, tolerances.weight);
        }
        EXPECT_EQ(vectors, 2 * observer.switches());
        EXPECT_EQ(reset, 2 * observer.switches());
        for (const Observed& x : observer.matrices())
            for (const Side& s : x.side) {
                EXPECT_EQ(s.visited.size(), 24u) << s.factor->shard.name << ": candidates that were active";
                const std::size_t expected = visits(*s.owned->owners().group);
                for (const std::set<int>& owners : s.owners)
                    EXPECT_TRUE(expected == 0 || owners.size() == expected)
                        << s.factor->shard.name << ": " << owners.size() << " owners";
            }
    });
}

std::size_t any_number(const Comm&) {
    return 0;
}

TEST(SwitchStepTest, Ring) {
    observe(tiny_config(arguments({"--method.rank=6"})), {}, 50,
            [](const Comm& group) { return static_cast<std::size_t>(std::min(group.size(), 24 / 6)); });
}

TEST(SwitchStepTest, RingWithFixedSlots) {
    observe(tiny_config(
                arguments({"--method.rank=6", "--parallel.rotate=false", "--parallel.shard_frozen=true"})),
            {}, 30, [](const Comm&) { return std::size_t{1}; });
}

TEST(SwitchStepTest, RingWithAPartialLap) {
    observe(tiny_config(arguments({"--method.rank=7"})), {}, 30, any_number);
}

TEST(SwitchStepTest, RandomOrder) {
    observe(tiny_config(arguments({"--method.rank=8", "--method.switch_order=random"})), {}, 80, any_number);
}

/// Frozen weights are f32 values in two words; 12 + 6 products are summed per element. Logits are in bf16.
Tolerances bf16_tolerances(bool bank_rounds) {
    return {8 * std::sqrt(18.0) * test::eps_of(DType::f32), 2 * test::eps_of(DType::bf16), bank_rounds};
}

TEST(SwitchStepTest, Bf16) {
    observe(tiny_config(arguments({"--method.rank=6", "--run.dtype=bf16"})), bf16_tolerances(true), 40,
            any_number);
}

TEST(SwitchStepTest, Bf16WithAnF32Bank) {
    observe(tiny_config(arguments({"--method.rank=6", "--run.dtype=bf16", "--method.bank_dtype=f32"})),
            bf16_tolerances(false), 40, any_number);
}

/// The masters of active candidates and the bank rows of the others, as a checkpoint holds them.
testing::WholeState banks(TrainState& state) {
    testing::WholeState all = testing::whole_state(state);
    std::erase_if(all, [](const auto& entry) { return entry.first.find("/bank_") == std::string::npos; });
    return all;
}

TEST(SwitchStepTest, NothingIsLostOnTheWay) {
    for (const char* dtype : {"f32", "bf16"}) {
        const Config config = tiny_config(
            arguments({"--method.rank=6", std::string("--run.dtype=") + dtype, "--method.bank_dtype=f32"}));
        testing::for_each_layout(config, [&](Config here, const Topology& topology) {
            here.data.micro_batch = largest_micro_batch(topology);
            TinyRun run(here, topology);
            run.losses(5);
            testing::WholeState before, after;
            auto& hooks = testing::HookedMethod::install(run.state());
            hooks.before_switch = [&] { before = banks(run.state()); };
            hooks.after_switch = [&] { after = banks(run.state()); };
            std::int64_t switched = 0;
            for (int t = 0; t < 2; ++t) {
                switched += run.step().method.vectors_switched;
                EXPECT_EQ(before, after);
                EXPECT_EQ(before.size(), topology.world.rank() == 0 ? 14u : 0u);
            }
            EXPECT_GT(switched, 14);
        });
    }
}

}  // namespace
}  // namespace switchyard
