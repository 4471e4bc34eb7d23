// RANKS: 1 4
// What a step does beside the numbers of test_muon: gradients are those of whole weights, one rank of dp owns
// a matrix, what a gradient that is not finite leaves untouched, and what is sent.
#include <gtest/gtest.h>

#include "core/calls.hpp"
#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "plan/plan.hpp"
#include "support/layouts.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"
#include "support/upload_batch.hpp"

namespace switchyard {
namespace {

using test::Values;
using testing::tiny_config;
using testing::TinyRun;

Config config_of(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--method.name=muon", "--data.seq_len=4"});
    return tiny_config(arguments);
}

std::vector<Values> gradients_of(TrainState& s) {
    testing::upload_batch(s.context.config, s.model);
    s.optimizer.zero_gradients();
    s.model.forward(1.0);
    s.model.backward();
    std::vector<Values> all;
    for (Parameter* p : s.model.parameters()) all.push_back(test::values_of(p->gradient));
    return all;
}

/// Those pass central differences in tests of the model.
TEST(MuonStep, GradientsAreThoseOfFullTraining) {
    const Topology one = testing::serial();
    TinyRun run(config_of({}), one), full(config_of({"--method.name=full"}), one);
    EXPECT_EQ(gradients_of(run.state()), gradients_of(full.state()));
}

OwnedParameter& owned_of(TrainState& s, Linear& linear) {
    return s.optimizer.owned()[static_cast<std::size_t>(s.optimizer.index_of(&linear.dense()))];
}

/// Shares are even but for one matrix, and nobody keeps a second moment.
TEST(MuonStep, EachMatrixHasOneOwner) {
    testing::for_each_layout(
        config_of({"--model.num_layers=3"}), [&](const Config& here, const Topology& topology) {
            TinyRun run(here, topology);
            double largest = 0, mine = 0;
            for (Linear* linear : run.state().model.linears()) {
                const OwnedParameter& owned = owned_of(run.state(), *linear);
                EXPECT_TRUE(owned.num_rows() == 0 || owned.num_rows() == linear->out().padded);
                EXPECT_EQ(all_reduce_sum(topology.dp, owned.num_rows() > 0 ? 1 : 0), 1) << linear->name();
                EXPECT_EQ(owned.v_width(), 0);
                const auto values = static_cast<double>(linear->out().size * linear->in().size);
                largest = std::max(largest, values);
                mine += owned.num_rows() > 0 ? values : 0;
            }
            EXPECT_LE(all_reduce_max(topology.dp, mine) - all_reduce_min(topology.dp, mine), largest);
        });
}

std::vector<Values> owned_state(TrainState& s) {
    std::vector<Values> all;
    for (Linear* linear : s.model.linears()) {
        const kernels::AdamWRows rows = owned_of(s, *linear).state_rows({});
        if (rows.m.empty()) continue;
        all.push_back(test::values_of(rows.m));
        all.push_back(test::values_of(rows.master));
    }
    return all;
}

TEST(MuonStep, AGradientThatIsNotFiniteReachesNoState) {
    for (const int bad_step : {0, 2})
        testing::for_each_layout(config_of({}), [&](const Config& here, const Topology& topology) {
            TinyRun run(here, topology);
            TrainState& s = run.state();
            run.losses(bad_step);
            const std::vector<Values> before = owned_state(s);
            kernels::fill(s.model.parameters().back()->value, NAN);
            EXPECT_THROW(run.step(), NotFinite);
            EXPECT_EQ(owned_state(s), before);
        });
}

/// Over tp every block but the owner's goes there and back in the compute type; without tp nothing is sent
/// that `full` does not send.
TEST(MuonStep, DirectionsTravelOverTensorParallelRanksAlone) {
    for (const char* dtype : {"bf16", "f32"})
        testing::for_each_layout(
            config_of({std::string("--run.dtype=") + dtype}),
            [&](const Config& here, const Topology& topology) {
                TinyRun run(here, topology);
                double block_values = 0;
                for (Linear* linear : run.state().model.linears())
                    block_values += static_cast<double>(linear->out().padded * linear->in().padded);
                run.step();
                const double other = run.traffic().bytes[static_cast<int>(TrafficGroup::other)];
                const int parts = topology.tp_size();
                EXPECT_EQ(all_reduce_sum(topology.world, other),
                          2 * (parts - 1) * block_values * (here.run.dtype == "bf16" ? 2 : 4));
                Config dense = here;
                dense.method = {"full", {}};
                TinyRun full(dense, topology);
                full.step();
                const auto bytes = [](TinyRun& r, TrafficGroup g) {
                    return r.traffic().bytes[static_cast<int>(g)];
                };
                for (TrafficGroup g : {TrafficGroup::gradients, TrafficGroup::values}) {
                    EXPECT_GE(bytes(run, g), bytes(full, g));
                    EXPECT_LE(bytes(run, g), 1.5 * bytes(full, g));
                }
            });
}

/// Five iterations, by one rank for each matrix.
TEST(MuonStep, PlanCountsProductsOfTheIteration) {
    const auto operations = [](const Config& config, int ranks) {
        const Plan plan = make_plan(config, ranks, 0, 1);
        return plan.flops_per_token.executed * plan.tokens_per_step;
    };
    const double cube = 24 * 24 * 24, long_cube = 24 * 24 * 37,
                 expected = 2 * 5 * (4 * (4 + 2) * cube + 3 * (4 * long_cube + 2 * cube));
    for (int ranks : {1, 4}) {
        const double full = operations(config_of({"--method.name=full"}), ranks);
        EXPECT_NEAR(operations(config_of({}), ranks) - full, expected, 1e-12 * full) << ranks;
    }
}

/// Messages are padded to the longest. 84 matrices, of which a rank has 10 or 11, or 1 or 2.
TEST(MuonStep, PaddingIsThatOfTheLargestShare) {
    const auto sent = [](const std::string& method, int ranks) {
        const Config config =
            config_of({"--method.name=" + method, "--model.hidden_size=768", "--model.num_layers=12",
                       "--model.ffn_size=2048", "--model.vocab_size=32000",
                       fmt::format("--data.global_batch={}", ranks)});
        return total_bytes(make_plan(config, ranks, 0, 1).rank.mean());
    };
    EXPECT_LT(sent("muon", 8), 1.03 * sent("full", 8));
    EXPECT_LT(sent("muon", 64), 1.15 * sent("full", 64));
}

/// In the published code the first moment makes the first step as long as any other: its length has no
/// effect.
TEST(MuonStep, TheFirstStepMovesEachMatrixByTheRate) {
    const Config config = config_of(
        {"--optim.lr=0.01", "--optim.weight_decay=0", "--optim.warmup_steps=0", "--optim.schedule=constant"});
    const Topology one = testing::serial();
    TinyRun run(config, one);
    std::vector<Values> before;
    for (Linear* linear : run.state().model.linears())
        before.push_back(test::values_of(linear->dense().value));
    run.step();
    std::size_t i = 0;
    for (Linear* linear : run.state().model.linears()) {
        const Values after = test::values_of(linear->dense().value);
        double square = 0;
        for (std::size_t k = 0; k < after.size(); ++k) square += std::pow(after[k] - before[i][k], 2);
        // Singular values near 1 make |O|^2 about min(m, n), that is mean squares of 1 / max(m, n).
        const auto m = static_cast<double>(linear->out().size), n = static_cast<double>(linear->in().size);
        const double rms = std::sqrt(square / (m * n));
        EXPECT_GT(rms, 0.6 * 0.2 * 0.01) << linear->name();
        EXPECT_LT(rms, 1.14 * 0.2 * 0.01) << linear->name();
        ++i;
    }
}

}  // namespace
}  // namespace switchyard
