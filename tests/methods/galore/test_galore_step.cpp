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
#include "support/serial_losses.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_run.hpp"
#include "support/upload_batch.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace galore_step_test {

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
        testing::upload_batch(config, s.model);
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

/// With whole gradients the basis of a step is that of its own gradient: with as many columns as the
/// projected dimension has, nothing of the gradient is lost, and the run is that with this basis from the
/// start.
TEST(GaloreStepTest, FullRankSingularVectorsRotateTheGradientOfTheirOwnStep) {
    const std::vector<std::string> common{"--method.rank=24", "--method.update_interval=1000",
                                          "--optim.eps=1e-4"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.end(), common.begin(), common.end());
        return config_of(more);
    };
    const Config full = tiny_config({"--method.name=full", "--model.num_layers=1", "--data.seq_len=4"});
    testing::for_each_layout(
        with({"--method.basis=svd", "--method.refresh_together=true"}),
        [&](const Config& here, const Topology& topology) {
            TinyRun run(here, topology);
            Config fixed = with({"--method.basis=random"}), dense = full;
            fixed.parallel.tp = dense.parallel.tp = here.parallel.tp;
            TinyRun expected(fixed, topology);
            std::vector<StepResult> results;
            results.push_back(run.step());
            EXPECT_NEAR(results[0].grad_norm, TinyRun(dense, topology).step().grad_norm, 1e-12);
            for (Linear* linear : run.state().model.linears())
                for (Linear* other : expected.state().model.linears())
                    if (other->name() == linear->name())
                        kernels::copy(adapter_of(*linear).basis(), adapter_of(*other).basis());
            for (int t = 1; t < 8; ++t) results.push_back(run.step());
            for (int t = 0; t < 8; ++t) {
                const StepResult b = expected.step();
                EXPECT_NEAR(results[t].loss, b.loss, 1e-12 * b.loss) << "step " << t;
                EXPECT_NEAR(results[t].grad_norm, b.grad_norm, 1e-11 * b.grad_norm) << "step " << t;
            }
        });
}

/// Subspace iteration takes the range of the gradient in steps 0 and 5, the bases in steps 1 and 6; of seven
/// matrices in five steps, each step refreshes one or two.
TEST(GaloreStepTest, AGradientThatIsNotFiniteReachesNoBasis) {
    for (const auto& [basis, bad_step] : {std::pair{"subspace", 0},
                                          {"subspace", 1},
                                          {"subspace", 5},
                                          {"subspace", 6},
                                          {"svd", 0},
                                          {"svd", 5}})
        testing::for_each_layout(config_of({std::string("--method.basis=") + basis}),
                                 [&](const Config& here, const Topology& topology) {
                                     TinyRun run(here, topology);
                                     TrainState& s = run.state();
                                     run.losses(bad_step);
                                     const std::vector<Values> before = projected_state(s);
                                     kernels::fill(s.model.parameters().back()->value, NAN);
                                     EXPECT_THROW(run.step(), NotFinite);
                                     std::vector<Values> after = projected_state(s);
                                     ASSERT_EQ(after.size(), before.size());
                                     for (std::size_t i = 0; i < before.size(); ++i)
                                         EXPECT_EQ(after[i], before[i]) << i;
                                 });
}

TEST(GaloreStepTest, TheHostWaitsOnceMoreInAStepThatChangesBases) {
    for (const char* basis : {"subspace", "svd", "random"})
        testing::for_each_layout(
            config_of({std::string("--method.basis=") + basis}),
            [&](const Config& here, const Topology& topology) {
                TinyRun run(here, topology);
                const bool follows = basis == std::string("subspace"), whole = basis == std::string("svd");
                count_calls(true);
                for (int t = 0; t < 12; ++t) {
                    const MethodReport report = run.step().method;
                    const StepCalls calls = calls_of_last_step();
                    bool changes = follows ? t % 5 <= 1 : (t + 1) % 5 == 0;
                    int turns = 0;  // matrices that take singular vectors, each solved by one rank
                    if (whole) {
                        changes = false;
                        for (int j = 0; j < 7; ++j) {
                            if (j * 5 / 7 != t % 5) continue;
                            ++turns;
                            changes = changes || j % topology.world.size() == topology.world.rank();
                        }
                    }
                    EXPECT_EQ(calls.total(Call::host_read), changes ? 2 : 1) << basis << ", step " << t;
                    EXPECT_TRUE(report.kept.empty()) << basis << ", step " << t;
                    if (t > 6) {
                        EXPECT_EQ(calls.total(Call::allocation), 0) << basis << ", step " << t;
                    }
                    // Reported by the step that uses them first.
                    const bool changed = t == 0 || (follows ? t % 5 == 2 : t % 5 == 0);
                    const int matrices = t == 0 ? 7 : whole ? turns : changed ? 7 : 0;  // at 0 all are drawn
                    EXPECT_EQ(report.vectors_switched, matrices * 6) << basis << ", step " << t;
                    EXPECT_EQ(report.residual_of.empty(), matrices == 0) << basis << ", step " << t;
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
    Config best = config;
    best.method.options.at("basis") = "svd";
    best.method.options.at("refresh_together") = "true";
    TinyRun whole(best, one);
    whole.step();
    double sum = 0;
    for (Linear* linear : whole.state().model.linears())
        for (double x : test::values_of(adapter_of(*linear).direction().gradient)) sum += x * x;
    EXPECT_GT(sum, 2 * squares[0]);  // of the same gradient
}

/// With a head of zeros no gradient reaches the blocks: bases stay, the report names their matrices, and the
/// run goes on.
TEST(GaloreStepTest, AMatrixWithoutAGradientKeepsItsBasis) {
    for (const char* basis : {"subspace", "svd"})
        testing::for_each_layout(
            config_of({std::string("--method.basis=") + basis, "--method.refresh_together=true",
                       "--optim.lr=0", "--optim.weight_decay=0"}),
            [&](const Config& here, const Topology& topology) {
                TinyRun run(here, topology);
                TrainState& s = run.state();
                const auto is_head = [](const Parameter* p) { return p->shard.name == "lm_head.weight"; };
                const auto parameters = s.model.parameters();
                const auto head = std::find_if(parameters.begin(), parameters.end(), is_head);
                ASSERT_NE(head, parameters.end());
                kernels::zero((*head)->value);
                s.optimizer.masters_from_values();
                const std::vector<Values> before = projected_state(s);
                std::vector<std::string> names;
                for (Linear* linear : s.model.linears()) names.push_back(linear->name());
                const bool whole = basis == std::string("svd");
                for (int t = 0; t < 2; ++t) {
                    const StepResult result = run.step();
                    const bool turn = t == (whole ? 0 : 1);
                    EXPECT_EQ(result.method.kept, turn ? names : std::vector<std::string>{}) << basis << t;
                    EXPECT_GT(result.grad_norm, 0);  // of the head
                    EXPECT_EQ(projected_state(s), before) << basis << t;
                }
            });
}

/// Eight tokens: no gradient has more than eight singular vectors. The others of a basis are the old one's.
TEST(GaloreStepTest, AGradientOfFewTokensIsCompletedAlikeOnEveryLayout) {
    const Config config = config_of({"--method.basis=svd", "--method.refresh_together=true",
                                     "--data.seq_len=2", "--data.global_batch=4", "--data.micro_batch=1",
                                     "--method.rank=12", "--optim.eps=1e-4", "--method.update_interval=2"});
    const std::vector<double> expected = testing::serial_losses(config, 6);
    testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        for (int t = 0; t < 6; ++t) {
            const StepResult result = run.step();
            EXPECT_NEAR(result.loss, expected[t], 1e-10 * expected[t]) << "step " << t;
            EXPECT_EQ(result.method.kept.size(), t % 2 == 0 ? 7 : 0) << "step " << t;
            if (t > 0 && t % 2 == 0) {
                EXPECT_LE(result.method.vectors_switched, 7 * 8) << "step " << t;
            }
            EXPECT_LT(result.method.residual, 1e-13);
        }
    });
}

}  // namespace galore_step_test
}  // namespace switchyard
