// RANKS: 1 2 3 4
// The whole method on every layout against a reference on one process (reference/relora.hpp) over 100 steps
// in f64; what a merge does to function, factors, moments and rates; and a start that learns nothing.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/processor.hpp"
#include "methods/registry.hpp"
#include "optim/schedule.hpp"
#include "reference/relora.hpp"
#include "support/dense_model.hpp"
#include "support/switch_observer.hpp"
#include "support/temporary_directory.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace relora_test {

using reference::Array;
using testing::tiny_config;
using testing::TinyRun;

constexpr std::int64_t interval = 20, warmup = 5;

/// Calm settings: with larger rates and alpha, rounding grows from step to step. optim.eps: an element whose
/// gradient is rounding noise would otherwise move by the full rate in its direction.
Config config_of(std::vector<std::string> more = {}) {
    std::vector<std::string> all{"--method.name=relora",        "--method.alpha=6",
                                 "--method.merge_interval=20",  "--method.restart_warmup=5",
                                 "--method.prune_ratio=0.8",    "--optim.lr=0.004",
                                 "--optim.dense_lr=0.004",      "--optim.eps=1e-4",
                                 "--run.steps=100",             "--model.num_layers=1",
                                 "--data.seq_len=4",            "--data.micro_batch=12"};
    all.insert(all.end(), more.begin(), more.end());
    return tiny_config(all);
}

/// Uses the program's random streams, which are keyed by name and global index.
struct Reference {
    Config config;
    testing::DenseModel model;
    reference::ReloraRun run;

    explicit Reference(const Config& c) : config(c), model(c) {
        run.rates = {c.optim.lr, c.optim.beta1, c.optim.beta2, c.optim.eps, c.optim.weight_decay};
        run.dense_lr = c.optim.dense_lr;
        run.clip_norm = c.optim.clip_norm;
        for (Parameter* p : model.parameters()) {
            const std::string& name = p->shard.name;
            const int rows = static_cast<int>(p->shard.rows), cols = static_cast<int>(p->shard.cols);
            Array initial(static_cast<std::size_t>(rows * cols));
            for (std::size_t i = 0; i < initial.size(); ++i)
                initial[i] = cols == 1 ? 1 : c.model.init_std * normal(key(name), i);
            if (!name.ends_with("_proj.weight")) {
                reference::Trained& x = run.dense[name] = {rows, cols};
                for (std::size_t i = 0; i < initial.size(); ++i) x.numbers[i].value = initial[i];
                continue;
            }
            reference::MergedMatrix x(rows, cols, static_cast<int>(option_integer(c.method, "rank")),
                                      option_real(c.method, "alpha"));
            x.w = initial;
            const Array a = drawn(name, x, "");
            for (std::size_t i = 0; i < a.size(); ++i) x.factor[0].numbers[i].value = a[i];
            run.matrices.emplace(name, std::move(x));
        }
    }
    std::uint64_t key(const std::string& stream) const { return stream_key(config.run.seed, stream); }
    static std::string linear(const std::string& weight) { return weight.substr(0, weight.size() - 7); }

    Array drawn(const std::string& name, const reference::MergedMatrix& x, const std::string& restart) const {
        Array a(static_cast<std::size_t>(x.r * x.n));
        const std::uint64_t stream = key(linear(name) + ".lora_A" + restart);
        for (std::size_t i = 0; i < a.size(); ++i) a[i] = (2 * uniform(stream, i) - 1) / std::sqrt(x.n);
        return a;
    }
    Array pruned(const std::string& name, int side, const std::string& moment, const Array& values,
                 const std::string& restart) const {
        const std::string& how = option_text(config.method, "reset");
        const double ratio = option_real(config.method, "prune_ratio");
        if (how == "zero") return Array(values.size());
        if (how == "magnitude") return reference::without_smallest(values, ratio);
        Array mask(values.size());
        const std::uint64_t stream =
            key(linear(name) + (side == 0 ? ".lora_A " : ".lora_B ") + moment + restart);
        for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = 2 * uniform(stream, i) - 1;
        return reference::above(values, mask, ratio);
    }

    void step(std::int64_t t) {
        for (auto& [name, x] : run.matrices) model.set(name, x.effective());
        for (auto& [name, x] : run.dense) {
            Array values;
            for (const auto& number : x.numbers) values.push_back(number.value);
            model.set(name, values);
        }
        const auto schedule = [&](std::int64_t s) { return lr_schedule(config.optim, s, config.run.steps); };
        run.step(model.gradients(), reference::jagged(schedule, t, interval, warmup));
        if ((t + 1) % interval != 0) return;
        const std::string restart = " restart " + std::to_string((t + 1) / interval);
        run.restart([&](const std::string& name, const auto& x) { return drawn(name, x, restart); },
                    [&](const std::string& name, int side, const std::string& moment, const Array& values) {
                        return pruned(name, side, moment, values, restart);
                    });
    }

    /// All state under the names and in the shapes of a checkpoint.
    testing::WholeState whole() {
        testing::WholeState all;
        for (auto& [name, x] : run.dense) {
            put(all, name, x, false);
            all["/optimizer/" + name + "/step"] = {static_cast<double>(x.steps.front())};
        }
        for (auto& [name, x] : run.matrices) {
            all["/model/" + name] = x.w;
            for (int side : {0, 1}) {
                const std::string factor = linear(name) + (side == 0 ? ".lora_A" : ".lora_B");
                put(all, factor, x.factor[side], side == 1);
                all["/optimizer/" + factor + "/step"].assign(x.factor[side].steps.begin(),
                                                             x.factor[side].steps.end());
            }
        }
        return all;
    }
    static void put(testing::WholeState& all, const std::string& name, const reference::Trained& x,
                    bool transposed) {
        for (const auto& [path, member] :
             {std::pair{"/model/" + name, &reference::AdamWNumber::value},
              std::pair{"/optimizer/" + name + "/m", &reference::AdamWNumber::m},
              std::pair{"/optimizer/" + name + "/v", &reference::AdamWNumber::v}}) {
            Array& values = all[path];
            values.resize(x.numbers.size());
            for (int i = 0; i < x.rows; ++i)
                for (int j = 0; j < x.cols; ++j)
                    values[transposed ? j * x.rows + i : i * x.cols + j] = x.numbers[i * x.cols + j].*member;
        }
    }
};

/// |actual - expected| <= tolerance * max |expected| for each dataset, and zeros where zeros are expected.
void expect_same(const testing::WholeState& actual, const testing::WholeState& expected, double tolerance) {
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, values] : expected) {
        ASSERT_TRUE(actual.contains(name)) << name;
        const test::Values& found = actual.at(name);
        ASSERT_EQ(found.size(), values.size()) << name;
        double largest = 0, error = 0;
        std::int64_t other_zeros = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            largest = std::max(largest, std::fabs(values[i]));
            error = std::max(error, std::fabs(found[i] - values[i]));
            other_zeros += (found[i] == 0) != (values[i] == 0);
        }
        EXPECT_LE(error, name.ends_with("/step") ? 0 : tolerance * largest) << name;
        EXPECT_EQ(other_zeros, 0) << name;
    }
}

void expect_reference(const std::vector<std::string>& arguments) {
    const Config config = config_of(arguments);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const bool root = rank == 0;
    const std::vector<int> looks{1, 20, 40, 41, 45, 100};  // steps made
    const int steps = backend::processor().is_gpu ? 45 : 100;  // emulated, it takes seconds for few
    std::vector<testing::WholeState> expected;
    if (root) {
        Reference reference(config);
        for (int t = 0; t < steps; ++t) {
            reference.step(t);
            if (std::count(looks.begin(), looks.end(), t + 1)) expected.push_back(reference.whole());
        }
    }
    testing::for_each_layout_in_few_passes(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        std::size_t look = 0;
        for (int t = 1; t <= steps; ++t) {
            run.step();
            if (look == looks.size() || looks[look] != t) continue;
            SCOPED_TRACE(::testing::Message() << "after " << t << " steps");
            const testing::WholeState state = testing::whole_state(run.state());
            if (root) expect_same(state, expected[look], 1e-10);
            ++look;
        }
    });
}

TEST(Relora, PruningByMagnitudeEqualsOneProcess) {
    expect_reference({"--method.reset=magnitude"});
}

TEST(Relora, PruningAtRandomOfShardedWeightsEqualsOneProcess) {
    expect_reference({"--method.reset=random", "--parallel.shard_frozen=true", "--method.rank=5"});
}

TEST(Relora, ZeroedMomentsAndUnmergedProductsEqualOneProcess) {
    expect_reference({"--method.reset=zero", "--method.strategy=unmerged"});
}

/// Loss on the batch in place, and the logits after its last token.
test::Values outputs(TrainState& state) {
    state.model.weights_changed();
    state.model.evaluate();
    test::Values all = testing::values_of(state.model.loss());
    const test::HostTensor logits(state.context.dtype, {1, state.model.vocabulary().padded});
    state.model.next_token_logits(state.context.tokens() - 1, logits);
    const test::Values values = logits.values();
    all.insert(all.end(), values.begin(), values.end());
    return all;
}

TEST(Relora, AMergeKeepsTheFunctionAndRestartsThePairs) {
    for (const auto& [dtype, tolerance] :
         {std::pair{"f64", 1e-13}, std::pair{"f32", 3e-6}, std::pair{"bf16", 2e-2}})
        for (const char* sharded : {"false", "true"}) {
            const Config config = config_of({std::string("--run.dtype=") + dtype, "--optim.lr=0.02",
                                             std::string("--parallel.shard_frozen=") + sharded,
                                             "--method.strategy=merged"});
            testing::for_each_layout(config, [&](Config here, const Topology& topology) {
                SCOPED_TRACE(dtype);
                here.data.micro_batch = 12 / topology.dp_size();
                TinyRun run(here, topology);
                TrainState& state = run.state();
                std::int64_t merges = 0;
                test::Values before;
                auto& hooks = testing::HookedMethod::install(state);
                hooks.before_switch = [&] { before = outputs(state); };
                hooks.after_switch = [&] {
                    const test::Values after = outputs(state);
                    EXPECT_LE(testing::max_difference(after, before), tolerance * testing::max_abs(before))
                        << "step " << state.step;
                };
                for (int t = 0; t < 45; ++t) {
                    const MethodReport report = run.step().method;
                    const bool merged = (t + 1) % interval == 0;
                    EXPECT_EQ(report.residual_of.empty(), !merged) << t;
                    EXPECT_EQ(report.vectors_switched, merged ? 7 * 2 * 6 : 0);
                    EXPECT_EQ(report.moments_reset, report.vectors_switched);
                    merges += merged;
                    if (!merged) continue;
                    // Something was merged, and it was not lost.
                    EXPECT_LE(report.residual, dtype == std::string("f64") ? 1e-14 : 3e-6);
                    for (Linear* linear : state.model.linears()) {
                        auto& adapter = dynamic_cast<LowRankAdapter&>(*linear->adapter());
                        EXPECT_EQ(testing::max_abs(testing::values_of(adapter.b().value)), 0);
                        const double bound = 1 / std::sqrt(static_cast<double>(linear->in().size));
                        const double largest = testing::max_abs(testing::values_of(adapter.a().value));
                        EXPECT_LE(largest, bound * (1 + 0x1p-8));  // rounded to bf16
                        EXPECT_TRUE(largest > 0.5 * bound || adapter.a().shard.empty());
                        for (Parameter* factor : adapter.parameters()) {
                            const auto& owned = state.optimizer.owned()[state.optimizer.index_of(factor)];
                            for (const auto& row : testing::row_states(owned)) EXPECT_EQ(row.step, t + 1);
                        }
                    }
                }
                EXPECT_EQ(merges, 2);
            });
        }
}

/// Non-zero elements of each moment of a factor, over all ranks and tp parts; padding is always zero.
TEST(Relora, PrunesTheShareOfEachWholeTensor) {
    for (const char* reset : {"zero", "magnitude", "random"}) {
        const Config config = config_of({std::string("--method.reset=") + reset});
        testing::for_each_layout(config, [&](Config here, const Topology& topology) {
            here.data.micro_batch = 12 / topology.dp_size();
            TinyRun run(here, topology);
            run.losses(interval - 1);
            const testing::WholeState before = testing::whole_state(run.state());
            run.step();
            const testing::WholeState after = testing::whole_state(run.state());
            if (topology.world.rank() != 0) return;
            int seen = 0;
            for (const auto& [name, values] : after) {
                if (!name.starts_with("/optimizer/") || name.ends_with("/step")) continue;
                const auto kept = values.size() -
                                  static_cast<std::size_t>(std::count(values.begin(), values.end(), 0.0));
                const auto size = static_cast<double>(values.size());
                if (name.find(".lora_") == std::string::npos) {
                    EXPECT_GT(static_cast<double>(kept), 0.5 * size) << name << ": not a factor";
                    continue;
                }
                ++seen;
                EXPECT_EQ(std::count(before.at(name).begin(), before.at(name).end(), 0.0), 0) << name;
                const bool random = reset == std::string("random"), none = reset == std::string("zero");
                const double expected = none     ? 0
                                        : random ? 0.2 * size
                                                 : size - 1 - std::floor(0.8 * (size - 1));
                const double tolerance = random ? 6 * std::sqrt(0.16 * size) : 0;  // standard deviations
                EXPECT_NEAR(static_cast<double>(kept), expected, tolerance) << name;
            }
            EXPECT_EQ(seen, 7 * 2 * 2);
        });
    }
}

/// Sets both factors of every pair to zero, or leaves them alone.
void zero_factors(TrainState& state) {
    for (Linear* linear : state.model.linears())
        for (Parameter* factor : linear->adapter()->parameters()) kernels::zero(factor->value);
    state.optimizer.masters_from_values();
    state.weights_changed();
}

/// Largest values of A and of B over all matrices.
std::pair<double, double> largest_factors(TrainState& state) {
    std::pair<double, double> largest;
    for (Linear* linear : state.model.linears()) {
        auto& adapter = dynamic_cast<LowRankAdapter&>(*linear->adapter());
        largest.first = std::max(largest.first, testing::max_abs(testing::values_of(adapter.a().value)));
        largest.second = std::max(largest.second, testing::max_abs(testing::values_of(adapter.b().value)));
    }
    return largest;
}

/// The released code zeroes A beside B at the start (its issue 18): then neither has a gradient, and the
/// whole first cycle trains nothing but the dense parts.
TEST(Relora, APairOfZerosIsDeadForACycleAndOursIsNot) {
    const Topology one = testing::serial();
    TinyRun run(config_of(), one), zeroed(config_of(), one);
    zero_factors(zeroed.state());
    EXPECT_GT(largest_factors(run.state()).first, 0);
    for (int t = 0; t < interval; ++t) {
        EXPECT_EQ(largest_factors(zeroed.state()), (std::pair{0.0, 0.0})) << t;
        run.step(), zeroed.step();
        EXPECT_EQ(largest_factors(run.state()).second > 0, t + 1 < interval) << t;
    }
    // The merge draws A, and the pair lives from the first update with a rate above zero on.
    EXPECT_GT(largest_factors(zeroed.state()).first, 0);
    zeroed.losses(2);
    EXPECT_GT(largest_factors(zeroed.state()).second, 0);
}

TEST(Relora, ItsRateIsThatOfTheReleasedCode) {
    const Config config = parse_config("", "",
                                       {"--method.name=relora", "--run.steps=15000",
                                        "--optim.warmup_steps=500", "--optim.min_lr_ratio=0.1",
                                        "--method.merge_interval=5000", "--method.restart_warmup=100"},
                                       method_options())
                              .config;
    const auto method = make_method(config);
    const auto factor = [&](std::int64_t step) {
        return lr_schedule(config.optim, step, config.run.steps) * method->lr_multiplier(step);
    };
    // Printed by its scheduler; four digits.
    for (const auto& [step, expected] : {std::pair{4999, 0.8026}, {5000, 0.0}, {5050, 0.3972}, {5100, 0.7944},
                                         {10000, 0.0}, {10100, 0.3307}, {14999, 0.1}})
        EXPECT_NEAR(factor(step), expected, 5.1e-5) << step;
    EXPECT_EQ(factor(5000), 0);
    EXPECT_EQ(method->lr_multiplier(0), 1);  // the first warm-up is the schedule's own
}

TEST(Relora, RefusesAWarmUpAsLongAsACycleAndTellsOfRunsWithoutAMerge) {
    Config config = config_of({"--method.restart_warmup=20"});
    const std::string message = test::message_of<UserError>([&] { validate_run(config, 1); });
    EXPECT_CONTAINS(message, "method.restart_warmup = 20 does not end before the next merge");
    EXPECT_CONTAINS(message, "raise method.merge_interval");
    config = config_of({"--method.restart_warmup=19"});
    EXPECT_NO_THROW(validate_run(config, 1));
    EXPECT_TRUE(make_method(config)->notes(config).empty());
    config = config_of({"--run.steps=20"});
    ASSERT_EQ(make_method(config)->notes(config).size(), 1u);
    EXPECT_CONTAINS(make_method(config)->notes(config)[0], "no step of 20 comes after a merge");
}

}  // namespace relora_test
}  // namespace switchyard
