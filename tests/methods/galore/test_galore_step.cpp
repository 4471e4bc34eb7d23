// RANKS: 1 4
// What a step does: gradients of the projected weights, full rank as AdamW, what a gradient that is not
// finite leaves untouched, how often the host waits, and that a basis that is not orthonormal is found.
#include <gtest/gtest.h>

#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"
#include "methods/galore/projected_adapter.hpp"
#include "support/grad_check.hpp"
#include "support/hooked_method.hpp"
#include "support/layouts.hpp"
#include "support/temporary_directory.hpp"
#include "support/whole_state.hpp"
#include "support/tiny_run.hpp"
#include "support/upload_sequence.hpp"

namespace switchyard {
namespace {

using test::Values;
using testing::tiny_config;
using testing::TinyRun;

Config config_of(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--method.name=galore", "--model.num_layers=1", "--data.seq_len=4",
                                         "--method.rank=6", "--method.update_interval=5"});
    return tiny_config(arguments);
}

ProjectedAdapter& adapter_of(const Linear& linear) {
    return dynamic_cast<ProjectedAdapter&>(*linear.adapter());
}

/// Along e_i q_j' the loss has the derivative (G Q)_ij: gradients of the directions against differences of
/// the loss when the base absorbs one direction.
TEST(GaloreStepTest, GradientsAreThoseOfTheBaseAlongTheBasis) {
    for (const char* projection : {"local", "std", "paper"}) {
        const Config config =
            config_of({std::string("--method.projection=") + projection, "--model.init_std=0.3"});
        const Topology one = testing::serial();
        TinyRun run(config, one);
        TrainState& s = run.state();
        testing::upload_sequence(s);
        const double scale = 1.0 / 4;
        const auto loss = [&] {
            s.model.weights_changed();
            s.model.evaluate();
            double sum = 0;
            kernels::download(s.model.loss(), &sum);
            return scale * sum;
        };
        s.optimizer.zero_gradients();
        s.model.forward(scale);
        s.model.backward();
        for (Linear* linear : s.model.linears()) {
            ProjectedAdapter& adapter = adapter_of(*linear);
            const Values gradient = test::values_of(adapter.direction().gradient);
            double largest = 0;
            for (double x : gradient) largest = std::max(largest, std::fabs(x));
            Values direction(gradient.size(), 0.0);
            for (std::size_t i = 0; i < gradient.size(); i += 13) {
                direction[i] = 1;
                kernels::upload(direction.data(), adapter.direction().value);
                const auto moved = [&](double by) {
                    adapter.absorb(*linear, by, 1);
                    const double result = loss();
                    adapter.absorb(*linear, -by, 1);
                    return result;
                };
                const double step = 1e-3, near = moved(step) - moved(-step),
                             far = moved(2 * step) - moved(-2 * step);
                EXPECT_NEAR(gradient[i], (8 * near - far) / (12 * step), 1e-9 * largest + 1e-13)
                    << linear->name() << " " << i << ", " << projection;
                direction[i] = 0;
            }
            EXPECT_GT(largest, 1e-6) << linear->name();
        }
    }
}

/// With as many columns as the projected dimension has, the method is AdamW on the rotated weights; with the
/// identity as basis it is AdamW.
TEST(GaloreStepTest, FullRankWithTheIdentityIsAdamW) {
    const std::vector<std::string> common{"--model.num_layers=1", "--data.seq_len=4", "--optim.eps=1e-4"};
    std::vector<std::string> dense = common;
    dense.push_back("--method.name=full");
    const Config full = tiny_config(dense);
    const Config galore = config_of({"--method.rank=24", "--method.alpha=1", "--method.basis=random",
                                     "--method.update_interval=1000", "--optim.eps=1e-4"});
    testing::for_each_layout(full, [&](const Config& here, const Topology& topology) {
        TinyRun expected(here, topology);
        Config projected = galore;
        projected.parallel.tp = here.parallel.tp;
        TinyRun run(projected, topology);
        for (Linear* linear : run.state().model.linears()) {
            const Tensor basis = adapter_of(*linear).basis();
            ASSERT_EQ(basis.dim(0), 24);
            Values identity(24 * 24, 0.0);
            for (std::size_t i = 0; i < 24; ++i) identity[25 * i] = 1;
            kernels::upload(identity.data(), basis);
        }
        for (int t = 0; t < 20; ++t) {
            const StepResult a = run.step(), b = expected.step();
            EXPECT_NEAR(a.loss, b.loss, 1e-12 * b.loss) << "step " << t;
            EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-11 * b.grad_norm) << "step " << t;
        }
        const testing::WholeState ours = testing::whole_state(run.state()),
                                  theirs = testing::whole_state(expected.state());
        for (const auto& [path, values] : theirs) {
            ASSERT_TRUE(ours.contains(path)) << path;
            ASSERT_EQ(ours.at(path).size(), values.size()) << path;
            for (std::size_t i = 0; i < values.size(); ++i)
                ASSERT_NEAR(ours.at(path)[i], values[i], 1e-11) << path << " " << i;
        }
    });
}

/// Bases, directions, stored words and moments of the matrices on this rank.
std::vector<Values> projected_state(TrainState& s) {
    std::vector<Values> all;
    for (Linear* linear : s.model.linears()) {
        ProjectedAdapter& adapter = adapter_of(*linear);
        all.push_back(test::values_of(adapter.basis()));
        all.push_back(test::values_of(adapter.direction().value));
        all.push_back(test::values_of(linear->base().words.hi));
        const kernels::AdamWRows rows =
            s.optimizer.owned()[s.optimizer.index_of(&adapter.direction())].state_rows({});
        if (!rows.m.empty()) all.push_back(test::values_of(rows.m));
    }
    return all;
}

/// Steps 0 and 5 take the range of the gradient, steps 1 and 6 the bases.
TEST(GaloreStepTest, AGradientThatIsNotFiniteReachesNoBasis) {
    for (const int bad_step : {0, 1, 5, 6})
        testing::for_each_layout(config_of({}), [&](const Config& here, const Topology& topology) {
            TinyRun run(here, topology);
            TrainState& s = run.state();
            run.losses(bad_step);
            const std::vector<Values> before = projected_state(s);
            kernels::fill(s.model.parameters().back()->value, NAN);
            EXPECT_THROW(run.step(), NotFinite);
            std::vector<Values> after = projected_state(s);
            ASSERT_EQ(after.size(), before.size());
            for (std::size_t i = 0; i < before.size(); ++i) EXPECT_EQ(after[i], before[i]) << i;
        });
}

TEST(GaloreStepTest, TheHostWaitsOnceMoreInAStepThatChangesBases) {
    for (const char* basis : {"subspace", "random"})
        testing::for_each_layout(
            config_of({std::string("--method.basis=") + basis}),
            [&](const Config& here, const Topology& topology) {
                TinyRun run(here, topology);
                const bool follows = basis == std::string("subspace");
                count_calls(true);
                for (int t = 0; t < 12; ++t) {
                    const MethodReport report = run.step().method;
                    const StepCalls calls = calls_of_last_step();
                    const bool changes = follows ? t % 5 <= 1 : (t + 1) % 5 == 0;
                    EXPECT_EQ(calls.total(Call::host_read), changes ? 2 : 1) << basis << ", step " << t;
                    if (t > 6) {
                        EXPECT_EQ(calls.total(Call::allocation), 0) << basis << ", step " << t;
                    }
                    // Reported by the step that uses them first.
                    const bool changed = t == 0 || (follows ? t % 5 == 2 : t % 5 == 0);
                    EXPECT_EQ(report.vectors_switched, changed ? 7 * 6 : 0) << basis << ", step " << t;
                    EXPECT_EQ(report.residual_of.empty(), !changed) << basis << ", step " << t;
                    EXPECT_LT(report.residual, 1e-13);
                }
                count_calls(false);
            });
}

TEST(GaloreStepTest, ABasisThatIsNotOrthonormalStopsTheRun) {
    for (const char* dtype : {"f64", "f32", "bf16"})
        testing::for_each_layout(
            config_of({std::string("--run.dtype=") + dtype}),
            [&](const Config& here, const Topology& topology) {
                TinyRun run(here, topology);
                const Tensor basis = adapter_of(*run.state().model.linears().front()).basis();
                kernels::add(test::HostTensor(basis.dtype(), basis.shape(),
                                              Values(static_cast<std::size_t>(basis.size()), 0.05)),
                             basis);
                EXPECT_CONTAINS(test::message_of<AgreedError>([&] { run.step(); }), "q_proj");
            });
}

/// The bases follow the gradient: more of it is seen than by those drawn at the start.
TEST(GaloreStepTest, ARefreshKeepsMoreOfTheGradient) {
    // A batch large enough for the gradient of one step to be like that of another.
    const Config config = config_of({"--optim.lr=0", "--data.global_batch=120", "--data.seq_len=8",
                                     "--data.micro_batch=12", "--method.update_interval=2"});
    const Topology one = testing::serial();
    TinyRun run(config, one);
    std::vector<double> squares;
    for (int t = 0; t < 5; ++t) {
        run.step();
        double sum = 0;
        for (Linear* linear : run.state().model.linears())
            for (double x : test::values_of(adapter_of(*linear).direction().gradient)) sum += x * x;
        squares.push_back(sum);
    }
    EXPECT_GT(squares[2], 1.5 * squares[0]);
    EXPECT_GT(squares[4], 2 * squares[0]);  // 6 of 24 directions, drawn: a quarter on average
}

}  // namespace
}  // namespace switchyard
