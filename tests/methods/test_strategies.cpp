// RANKS: 1 4
// method.strategy: every order of the products gives the same function and gradients, in each method that has
// the key, on every layout; each has the number of products that its cost says; and no other pair of a
// forward and a backward pass ever has fewer operations.
#include <gtest/gtest.h>

#include <map>

#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "core/processor.hpp"
#include "kernels/transfer.hpp"
#include "methods/parts/strategy.hpp"
#include "support/hooked_method.hpp"
#include "support/layouts.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_run.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace strategies_test {

using testing::tiny_config;
using testing::TinyRun;
using testing::WholeState;

constexpr int num_steps = 12;
const std::vector<std::string> strategies{"unmerged", "merged", "weight_gradient"};

/// Calm settings: with a large alpha / rank and rate, rounding grows tenfold a step. optim.eps: an element
/// whose gradient is rounding noise would otherwise move by the full rate.
std::vector<std::string> arguments_of(const std::string& method) {
    std::vector<std::string> all{"--method.name=" + method, "--optim.eps=1e-4", "--method.rank=5",
                                 "--optim.lr=0.003",        "--data.micro_batch=3", "--data.seq_len=4",
                                 "--model.num_layers=1"};
    for (const MethodOptions& known : method_options())
        for (const MethodOption& option : known.options) {
            if (known.name != method) continue;
            if (option.key == "alpha") all.push_back("--method.alpha=4");
            if (option.key == "init") all.push_back("--method.init=switchlora");
            if (option.key == "merge_interval")
                all.insert(all.end(), {"--method.merge_interval=5", "--method.restart_warmup=2"});
            if (option.key == "switch_interval")
                all.insert(all.end(), {"--method.switch_interval=6", "--method.freeze_steps=3",
                                       "--method.switch_ratio=1"});
        }
    return all;
}

std::vector<std::string> methods_with_strategies() {
    std::vector<std::string> names;
    for (const MethodOptions& method : method_options())
        for (const MethodOption& option : method.options)
            if (option.key == "strategy") names.push_back(method.name);
    return names;
}

Config with_strategy(std::vector<std::string> arguments, const std::string& strategy) {
    arguments.push_back("--method.strategy=" + strategy);
    return tiny_config(arguments);
}

int num_ranks() {
    int ranks = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    return ranks;
}

/// |a - b| <= tolerance * max |b| in every dataset. Moments are the gradients, up to known factors.
void expect_close(const WholeState& a, const WholeState& b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, values] : b) {
        const test::Values& others = a.at(name);
        ASSERT_EQ(others.size(), values.size()) << name;
        double largest = 0, error = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            largest = std::max(largest, std::fabs(values[i]));
            error = std::max(error, std::fabs(others[i] - values[i]));
        }
        EXPECT_LE(error, tolerance * largest) << name;
    }
}

TEST(Strategies, GiveTheSameFunctionAndGradientsOnEveryLayout) {
    ASSERT_FALSE(methods_with_strategies().empty());
    const Topology one = testing::serial();
    for (const std::string& method : methods_with_strategies()) {
        TinyRun reference(with_strategy(arguments_of(method), "unmerged"), one);
        const double first = reference.step().loss;
        const WholeState after_one = testing::whole_state(reference.state());
        const std::vector<double> losses = reference.losses(num_steps - 1);
        for (const std::string& strategy : strategies)
            for (const char* sharded : {"false", "true"}) {
                SCOPED_TRACE(method + ", " + strategy + ", shard_frozen " + sharded);
                Config config = with_strategy(arguments_of(method), strategy);
                config.parallel.shard_frozen = sharded == std::string("true");
                config.model.recompute = config.parallel.shard_frozen;
                testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
                    TinyRun run(here, topology);
                    for (Linear* linear : run.state().model.linears())
                        EXPECT_EQ(linear->adapter()->merged(), strategy != "unmerged");
                    EXPECT_NEAR(run.step().loss, first, 1e-13 * first);
                    const WholeState state = testing::whole_state(run.state());
                    if (topology.world.rank() == 0) expect_close(state, after_one, 1e-12);
                    const std::vector<double> others = run.losses(num_steps - 1);
                    for (int i = 0; i < num_steps - 1; ++i)
                        EXPECT_NEAR(others[i], losses[i], 1e-11 * losses[i]) << i;
                });
            }
    }
}

TEST(Strategies, AccumulateOverMicroBatchesAndSteps) {
    const Topology one = testing::serial();
    std::vector<std::vector<double>> losses;
    for (const char* size : {"1", "4", "12"}) {
        auto arguments = arguments_of("lora");
        arguments.push_back(std::string("--data.micro_batch=") + size);
        losses.push_back(TinyRun(with_strategy(arguments, "weight_gradient"), one).losses(6));
    }
    for (const auto& others : losses)
        for (int i = 0; i < 6; ++i) EXPECT_NEAR(others[i], losses[0][i], 1e-12 * losses[0][i]) << i;
}

/// Of every third element of what adapters train, and of some of the rest.
TEST(Strategies, GradientsPassCentralDifferences) {
    const bool is_gpu = backend::processor().is_gpu;  // fewer elements: it is emulated
    const Topology one = testing::serial();
    if (num_ranks() > 1) GTEST_SKIP() << "differentiated on one rank";
    for (const std::string& method : methods_with_strategies())
        for (const std::string& strategy : strategies) {
            SCOPED_TRACE(method + ", " + strategy);
            auto arguments = arguments_of(method);
            arguments.insert(arguments.end(), {"--data.global_batch=1", "--data.micro_batch=1"});
            TinyRun run(with_strategy(arguments, strategy), one);
            run.losses(2);  // B has left zero
            TrainState& state = run.state();
            std::int64_t checked = 0;
            testing::HookedMethod::install(state).after_reduction = [&] {
                const auto loss = [&] {
                    state.weights_changed();
                    state.model.evaluate();
                    const auto tokens = static_cast<double>(run.config().data.seq_len);
                    return test::values_of(state.model.loss())[0] / tokens;
                };
                for (Parameter* p : state.model.parameters()) {
                    const test::Values gradient = test::values_of(p->gradient);
                    test::HostTensor value = test::host_copy(p->value);
                    double largest = 0;
                    for (double g : gradient) largest = std::max(largest, std::fabs(g));
                    const std::int64_t usual = p->role == ParameterRole::factor ? 3 : 41,
                                       stride = usual * (is_gpu ? 20 : 1);
                    const std::int64_t width = p->shard.global.rank() == 2 ? p->value.dim(1) : 1;
                    for (std::int64_t i = 0; i < p->shard.rows * width; i += stride) {
                        if (i % width >= p->shard.cols) continue;  // padding
                        const double x = value.at(i);
                        const auto loss_at = [&](double shifted) {
                            value.set(i, shifted);
                            kernels::upload(value.bytes(), p->value);
                            return loss();
                        };
                        const double h = 1e-4, near = loss_at(x + h) - loss_at(x - h),
                                     far = loss_at(x + 2 * h) - loss_at(x - 2 * h);
                        loss_at(x);
                        ASSERT_NEAR(gradient[static_cast<std::size_t>(i)], (8 * near - far) / (12 * h),
                                    1e-8 * largest + 1e-10)
                            << p->shard.name << " element " << i;
                        ++checked;
                    }
                }
            };
            run.step();
            EXPECT_GT(checked, is_gpu ? 20 : 400);
        }
}

/// In f32 and bf16 they agree to rounding: of the copy, and of what backward passes on.
TEST(Strategies, AgreeInEveryType) {
    const Topology one = testing::serial();
    for (const auto& [dtype, tolerance] : {std::pair{"f32", 1e-5}, std::pair{"bf16", 1e-2}}) {
        std::vector<double> first;
        for (const std::string& strategy : strategies) {
            auto arguments = arguments_of("lora");
            arguments.push_back(std::string("--run.dtype=") + dtype);
            const std::vector<double> losses = TinyRun(with_strategy(arguments, strategy), one).losses(8);
            if (first.empty()) first = losses;
            for (int i = 0; i < 8; ++i)
                EXPECT_NEAR(losses[i], first[i], tolerance * first[i]) << dtype << ", " << strategy;
            EXPECT_LT(losses[7], losses[0]) << "nothing learned: the comparison shows nothing";
        }
    }
}

/// Matrix products by phase.
std::map<Phase, std::int64_t> products(const Config& config) {
    const Topology topology = testing::serial();
    count_calls(true);
    TinyRun(config, topology).step();
    const StepCalls calls = calls_of_last_step();
    count_calls(false);
    std::map<Phase, std::int64_t> all;
    for (Phase phase : {Phase::forward, Phase::backward, Phase::optimizer}) {
        const auto found = calls[phase].kernels.find("matmul");
        all[phase] = found == calls[phase].kernels.end() ? 0 : found->second;
    }
    return all;
}

TEST(Strategies, TheWeightGradientTakesTheProductsOfFullTrainingAndTwoMoreAStep) {
    if (num_ranks() > 1) GTEST_SKIP() << "counted on one rank";
    const auto full = products(tiny_config({"--method.name=full"})),
               own = products(with_strategy({"--method.name=lora"}, "weight_gradient"));
    EXPECT_EQ(own.at(Phase::forward), full.at(Phase::forward));
    EXPECT_EQ(own.at(Phase::backward), full.at(Phase::backward));
    EXPECT_EQ(full.at(Phase::optimizer), 0);
    EXPECT_EQ(own.at(Phase::optimizer), 2 * 7 * 2);  // two a linear, of two blocks
}

/// Operations of a step by the paper's table for the forward passes 1 and 2 and the backward passes 1 to 8,
/// for t tokens, where what does not change within a step (W + s B A) or adds up over it (dY' X) is formed
/// once. Q: dY' x is formed. Halved, as in the table.
double operations(int forward, int backward, double m, double n, double r, double t) {
    const bool copy_forward = forward == 2, copy = copy_forward || backward == 4 || backward == 5 ||
                                                   backward == 7 || backward == 8;
    const bool q = backward != 1 && backward != 5;
    double sum = (copy ? m * n * r : 0) + t * m * n;          // y from W or the copy
    if (!copy_forward) sum += t * r * (m + n);                // and from the factors
    sum += t * m * n;                                         // d_x from W or the copy
    const bool copy_d_x = copy && backward != 1 && backward != 2 && backward != 3 && backward != 6;
    if (!copy_d_x) sum += t * r * (m + n);                    // dY B, and that times A
    if (q) sum += t * m * n;                                  // dY' x
    const bool a_from_q = backward == 3 || backward == 4 || backward == 6 || backward == 7,
               b_from_q = q;
    if (a_from_q)
        sum += m * n * r;  // B' Q
    else
        sum += t * r * n + (copy_d_x ? t * r * m : 0);  // (dY B)' x, with dY B unless it is there
    sum += b_from_q ? m * n * r : t * r * (m + n);  // Q A', or x A' and its product with dY
    return sum;
}

TEST(Strategies, NoOtherPairHasFewerOperations) {
    const std::vector<std::int64_t> sizes{16, 64, 96, 256, 688, 2048, 5461, 16384};
    std::map<std::pair<int, int>, int> best_of_all;
    for (const std::int64_t m : sizes)
        for (const std::int64_t n : sizes)
            for (std::int64_t r = 1; r <= std::min(m, n); r *= 2)
                for (std::int64_t t = 1; t <= (1 << 20); t *= 2) {
                    std::pair<int, int> best{0, 0};
                    double least = 1e300;
                    // Ties go to the three.
                    const std::vector<std::pair<int, int>> ours{{1, 1}, {2, 5}, {2, 4}};
                    for (const auto& [f, b] : ours)
                        if (operations(f, b, m, n, r, t) < least)
                            best = {f, b}, least = operations(f, b, m, n, r, t);
                    for (int f = 1; f <= 2; ++f)
                        for (int b = 1; b <= 8; ++b)
                            if (operations(f, b, m, n, r, t) < least)
                                best = {f, b}, least = operations(f, b, m, n, r, t);
                    ++best_of_all[best];
                }
    ASSERT_EQ(best_of_all.size(), 3u);
    for (const auto& pair : {std::pair{1, 1}, std::pair{2, 5}, std::pair{2, 4}})
        EXPECT_GT(best_of_all[pair], 0) << pair.first << " " << pair.second;
}

TEST(Strategies, CostsAreThoseOfTheTable) {
    const double m = 96, n = 40, r = 7, t = 1000;
    const auto of = [&](Strategy strategy) {
        const Cost cost = cost_of(strategy, m, n, r, 1);
        return ((cost.forward + cost.backward) * t + cost.merge + cost.step) / 2;
    };
    EXPECT_EQ(of(Strategy::unmerged), operations(1, 1, m, n, r, t));
    EXPECT_EQ(of(Strategy::merged), operations(2, 5, m, n, r, t));
    EXPECT_EQ(of(Strategy::weight_gradient), operations(2, 4, m, n, r, t));
    EXPECT_EQ(cost_of(Strategy::weight_gradient, m, n, r, 3).step, 3 * 4 * m * n * r);
}

TEST(Strategies, OtherPairsAreRefused) {
    const std::string message = test::message_of<UserError>([] {
        parse_config("", "", {"--method.name=lora", "--method.strategy=unmerged+merged"}, method_options());
    });
    EXPECT_CONTAINS(message, "method.strategy = 'unmerged+merged'");
    EXPECT_CONTAINS(message, "one of auto, unmerged, merged, weight_gradient");
    EXPECT_CONTAINS(message, "did you mean 'unmerged'?");
}

}  // namespace strategies_test
}  // namespace switchyard
