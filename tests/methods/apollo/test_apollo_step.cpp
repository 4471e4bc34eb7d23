// RANKS: 1 4
// What a step does: gradients of both ways to store a weight, scales beside the directions that GaLore's path
// forms from the same projection, the limit of growth, and what a gradient that is not finite leaves alone.
#include <gtest/gtest.h>

#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "methods/galore/projected_adapter.hpp"
#include "support/layouts.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"
#include "support/upload_batch.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace apollo_step_test {

using test::Values;
using testing::tiny_config;
using testing::TinyRun;

Config config_of(const std::string& method, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--method.name=" + method, "--model.num_layers=1",
                                         "--data.seq_len=4", "--optim.schedule=constant",
                                         "--optim.warmup_steps=0"});
    return tiny_config(arguments);
}

/// Weights of the matrices by name, with rows and columns as stored.
std::map<std::string, Parameter*> weights_of(TrainState& s) {
    std::map<std::string, Parameter*> all;
    for (Parameter* p : s.model.parameters())
        if (p->role == ParameterRole::weight) all[p->shard.name] = p;
    return all;
}

double squares(const Values& values, std::size_t first, std::size_t count) {
    double sum = 0;
    for (std::size_t i = first; i < first + count; ++i) sum += values[i] * values[i];
    return sum;
}

TEST(ApolloStepTest, GradientsAreDifferencesOfTheLoss) {
    for (const char* projection : {"local", "std", "paper"}) {
        const Config config = config_of(
            "apollo", {std::string("--method.projection=") + projection, "--model.init_std=0.3"});
        const Topology one = testing::serial();
        TinyRun run(config, one);
        TrainState& s = run.state();
        testing::upload_batch(config, s.model);
        const double scale = 1.0 / 4;
        const auto loss = [&] {
            s.model.evaluate();
            double sum = 0;
            kernels::download(s.model.loss(), &sum);
            return scale * sum;
        };
        s.optimizer.zero_gradients();
        s.model.forward(scale);
        s.model.backward();
        std::set<bool> transposed;
        for (auto& [name, p] : weights_of(s)) {
            transposed.insert(p->transposed);
            const Values gradient = test::values_of(p->gradient), values = test::values_of(p->value);
            double largest = 0;
            for (double x : gradient) largest = std::max(largest, std::fabs(x));
            for (int k = 0; k < 4; ++k) {
                const std::int64_t row = 5 * k % p->shard.rows, column = 7 * k % p->shard.cols,
                                   i = row * p->value.dim(1) + column;
                const auto loss_at = [&](double by) {
                    test::set_value(p->value, i, values[i] + by);
                    return loss();
                };
                const double step = 1e-3, near = loss_at(step) - loss_at(-step),
                             far = loss_at(2 * step) - loss_at(-2 * step);
                loss_at(0);
                EXPECT_NEAR(gradient[i], (8 * near - far) / (12 * step), 1e-9 * largest + 1e-13)
                    << name << " " << i << ", " << projection;
            }
            EXPECT_GT(largest, 1e-6) << name;
        }
        EXPECT_EQ(transposed, (std::set{false, true})) << projection;
    }
}

TEST(ApolloStepTest, StartsWithTheWeightsOfFullTraining) {
    for (const char* dtype : {"f64", "bf16"})
        testing::for_each_layout(
            config_of("apollo", {std::string("--run.dtype=") + dtype, "--method.projection=paper"}),
            [&](const Config& here, const Topology& topology) {
                Config dense = here;
                dense.method = {"full", {}};
                TinyRun ours(here, topology), full(dense, topology);
                const testing::WholeState a = testing::whole_state(ours.state()),
                                          b = testing::whole_state(full.state());
                for (const auto& [path, values] : b)
                    if (path.starts_with("/model/")) {
                        EXPECT_EQ(a.at(path), values) << path;
                    }
            });
}

/// GaLore's path with APOLLO's projection as its basis: it forms R and Adam's direction N of the same
/// gradients, in another way. That the basis is not orthonormal is found at the end of each step, when N is
/// formed and nothing else has changed.
class Directions {
  public:
    explicit Directions(const Config& config) : run_(config, one_) {
        const std::int64_t r = option_integer(config.method, "rank");
        for (Linear* linear : run_.state().model.linears()) {
            const ProjectedAdapter& adapter = adapter_of(*linear);
            Values projection(static_cast<std::size_t>(adapter.basis().size()));
            const std::uint64_t key =
                stream_key(config.run.seed, linear->name() + ".weight projection 0");
            for (std::int64_t i = 0; i < adapter.projected().size * r; ++i)
                projection[static_cast<std::size_t>(i)] =
                    normal(key, i) / std::sqrt(static_cast<double>(r));
            kernels::upload(projection.data(), adapter.basis());
        }
    }
    void step(std::int64_t t) {
        run_.state().step = t;
        EXPECT_THROW(run_.step(), AgreedError);
    }
    /// (|N_i| / |R_i|)^2 of each kept row, or (|N| / |R|)^2.
    std::map<std::string, Values> scales(bool by_channel) {
        std::map<std::string, Values> all;
        for (Linear* linear : run_.state().model.linears()) {
            const Parameter& direction = adapter_of(*linear).direction();
            const Values n = test::values_of(direction.value), r = test::values_of(direction.gradient);
            const auto rows = static_cast<std::size_t>(direction.shard.rows),
                       width = static_cast<std::size_t>(direction.value.dim(1));
            Values& scales = all[linear->name() + ".weight"];
            if (!by_channel) scales = {squares(n, 0, n.size()) / squares(r, 0, r.size())};
            for (std::size_t i = 0; i < rows && by_channel; ++i)
                scales.push_back(squares(n, i * width, width) / squares(r, i * width, width));
        }
        return all;
    }

  private:
    static ProjectedAdapter& adapter_of(const Linear& linear) {
        return dynamic_cast<ProjectedAdapter&>(*linear.adapter());
    }
    Topology one_ = testing::serial();
    TinyRun run_;
};

/// Weights are put back after each step, so that both runs have the same gradients.
TEST(ApolloStepTest, RowsMoveAsFarAsGaloresDirectionsSay) {
    for (const bool by_channel : {true, false}) {
        const std::vector<std::string> common{by_channel ? "--method.rank=6" : "--method.rank=1",
                                              "--method.alpha=1", "--method.update_interval=100",
                                              "--optim.clip_norm=0", "--optim.weight_decay=0"};
        std::vector<std::string> ours = common, theirs = common;
        ours.insert(ours.end(), {std::string("--method.scale_by=") + (by_channel ? "channel" : "tensor"),
                                 "--method.growth_limit=0", "--optim.lr=1"});
        theirs.insert(theirs.end(), {"--method.basis=random", "--optim.lr=0"});
        const Topology one = testing::serial();
        TinyRun run(config_of("apollo", ours), one);
        Directions directions(config_of("galore", theirs));
        std::map<Parameter*, Values> start;
        for (Parameter* p : run.state().model.parameters()) start[p] = test::values_of(p->value);
        for (int t = 0; t < 6; ++t) {
            run.step();
            directions.step(t);
            const std::map<std::string, Values> expected = directions.scales(by_channel);
            for (auto& [name, p] : weights_of(run.state())) {
                Values moved = test::values_of(p->value);
                const Values gradient = test::values_of(p->gradient);
                for (std::size_t i = 0; i < moved.size(); ++i) moved[i] -= start[p][i];
                const Values& scales = expected.at(name);
                const std::size_t width = moved.size() / (by_channel ? p->value.dim(0) : 1);
                for (std::size_t i = 0; i < scales.size(); ++i) {
                    const double scale =
                        squares(moved, i * width, width) / squares(gradient, i * width, width);
                    EXPECT_NEAR(scale, scales[i], 1e-9 * scales[i])
                        << name << ", row " << i << ", step " << t;
                }
            }
            for (auto& [p, values] : start) kernels::upload(values.data(), p->value);
        }
    }
}

/// The norms of updates in the state are those of what the weights moved, and grow by 1 % at most; without a
/// limit they grow by more. Returns the largest growth, on rank 0.
double largest_growth(const char* scale_by, const char* limit, const Topology& topology) {
    Config config = config_of("apollo", {std::string("--method.scale_by=") + scale_by,
                                         "--method.update_interval=3", "--optim.weight_decay=0",
                                         std::string("--method.growth_limit=") + limit, "--optim.lr=0.001",
                                         "--method.alpha=2"});
    config.parallel.tp = topology.tp_size();
    TinyRun run(config, topology);
    double largest = 0;
    testing::WholeState before = testing::whole_state(run.state());
    for (int t = 0; t < 4; ++t) {
        run.step();
        testing::WholeState after = testing::whole_state(run.state());
        if (topology.world.rank() != 0) continue;
        const Values &norms = after.at("/method/update_norms"), &last = before.at("/method/update_norms");
        std::size_t i = 0;
        for (const Linear* linear : run.state().model.linears()) {
            const std::string path = "/model/" + linear->shard().name;
            Values moved = after.at(path);
            for (std::size_t k = 0; k < moved.size(); ++k) moved[k] -= before.at(path)[k];
            const double norm = std::sqrt(squares(moved, 0, moved.size())) / (0.001 * 2);
            EXPECT_NEAR(norms[i], norm, 1e-9 * norm) << path << ", step " << t;
            if (t > 0) largest = std::max(largest, norms[i] / last[i]);
            ++i;
        }
        before = std::move(after);
    }
    return largest;
}

TEST(ApolloStepTest, AnUpdateGrowsByALimitedFactor) {
    const Topology one = testing::serial();
    for (const char* scale_by : {"channel", "tensor"}) {
        EXPECT_GT(largest_growth(scale_by, "0", one), 1.05) << scale_by;
        testing::for_each_layout(config_of("apollo", {}), [&](const Config&, const Topology& topology) {
            const double growth = largest_growth(scale_by, "1.01", topology);
            if (topology.world.rank() == 0) {
                EXPECT_NEAR(growth, 1.01, 1e-12) << scale_by;
            }
        });
    }
}

TEST(ApolloStepTest, AGradientThatIsNotFiniteChangesNoState) {
    for (const char* scale_by : {"channel", "tensor"})
        testing::for_each_layout(
            config_of("apollo", {std::string("--method.scale_by=") + scale_by, "--method.projection=paper"}),
            [&](const Config& here, const Topology& topology) {
                TinyRun run(here, topology);
                run.losses(3);
                const Parameter* norm = run.state().model.parameters().back();
                const Values values = test::values_of(norm->value);
                const testing::WholeState before = testing::whole_state(run.state());
                kernels::fill(norm->value, NAN);
                EXPECT_THROW(run.step(), NotFinite);
                kernels::upload(test::HostTensor(norm->value.dtype(), norm->value.shape(), values).bytes(),
                                norm->value);
                const testing::WholeState after = testing::whole_state(run.state());
                EXPECT_EQ(after.size(), before.size());
                for (const auto& [path, state] : before) EXPECT_EQ(after.at(path), state) << path;
            });
}

TEST(ApolloStepTest, TheHostWaitsOnceAndNothingIsAllocated) {
    for (const char* scale_by : {"channel", "tensor"})
        testing::for_each_layout(
            config_of("apollo", {std::string("--method.scale_by=") + scale_by, "--method.update_interval=2"}),
            [&](const Config& here, const Topology& topology) {
                TinyRun run(here, topology);
                count_calls(true);
                for (int t = 0; t < 5; ++t) {
                    run.step();
                    const StepCalls calls = calls_of_last_step();
                    EXPECT_EQ(calls.total(Call::host_read), 1) << scale_by << ", step " << t;
                    if (t > 1) {
                        EXPECT_EQ(calls.total(Call::allocation), 0) << scale_by << ", step " << t;
                    }
                }
                count_calls(false);
            });
}

}  // namespace apollo_step_test
}  // namespace switchyard
