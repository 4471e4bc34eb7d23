// RANKS: 1 2 3 4
// LoFT on every layout against a reference on one process (reference/loft.hpp) over 100 steps in f64;
// gradients against differences; and what it is for: at full rank it moves weights as AdamW does, which
// neither defect of the released code does.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "methods/low_rank_method.hpp"
#include "reference/loft.hpp"
#include "support/factor_differences.hpp"

namespace switchyard {
namespace {

using reference::Array;
using reference::LoftMatrix;
using reference::Table;
using testing::tiny_config;
using testing::TinyRun;

std::vector<std::string> arguments_of(std::vector<std::string> more) {
    more.insert(more.begin(), {"--method.name=loft", "--method.rank=5", "--model.init_std=0.2",
                               "--model.num_layers=1", "--optim.lr=0.003", "--optim.eps=1e-4",
                               "--optim.schedule=constant", "--optim.warmup_steps=0"});
    return more;
}

bool on_one_rank() {
    return Comm::duplicate(MPI_COMM_WORLD).size() == 1;
}

void expect_reference(const std::vector<std::string>& arguments, int steps) {
    const Config config = tiny_config(arguments_of(arguments));
    const bool both = option_text(config.method, "init") == "switchlora";
    const auto make = [&](const std::string& linear, int m, int n) {
        LoftMatrix x(m, n, static_cast<int>(option_integer(config.method, "rank")));
        x.damping_a = option_real(config.method, "damping_a");
        x.damping_b = option_real(config.method, "damping_b");
        x.eps = option_real(config.method, "eps");
        x.beta1 = config.optim.beta1;
        x.beta2 = config.optim.beta2;
        x.subtracts = both;
        const FactorBounds bounds = switchlora_bounds(m, n, x.r);
        const auto drawn = [&](const std::string& name, int i, double bound) {
            return bound * (2 * uniform(stream_key(config.run.seed, linear + name), i) - 1);
        };
        for (int k = 0; k < x.r; ++k) {
            for (int j = 0; j < n; ++j)
                x.a(k, j) =
                    drawn(".lora_A", k * n + j, both ? bounds.a : 1 / std::sqrt(static_cast<double>(n)));
            for (int i = 0; i < m && both; ++i) x.b(i, k) = drawn(".lora_B", k * m + i, bounds.b);
        }
        return x;
    };
    testing::expect_reference<LoftMatrix>(config, steps, make, 1e-10);
}

TEST(Loft, EqualsOneProcess) {
    expect_reference({}, 100);
}

/// A factor of 70 rows moves in two parts where one rank has them all.
TEST(Loft, TwoDrawnFactorsWithOtherDampingsEqualOneProcess) {
    expect_reference({"--model.ffn_size=70", "--method.init=switchlora", "--method.damping_a=1e-3",
                      "--method.damping_b=0.1", "--method.eps=1e-3"},
                     12);
}

TEST(Loft, ShardedWeightsAndRecomputationEqualOneProcess) {
    expect_reference({"--parallel.shard_frozen=true", "--model.recompute=true", "--method.strategy=unmerged"},
                     12);
}

TEST(Loft, GradientsAreDifferencesOfTheLoss) {
    if (!on_one_rank()) GTEST_SKIP() << "on one rank";
    testing::expect_factor_differences(tiny_config(arguments_of({})), 5);
}

/// The largest difference between the weights of LoFT at full rank and of AdamW after 12 steps, by the
/// largest move; gradients pull to a target and are noisy.
double distance_from_adamw(bool first_defect, bool second_defect) {
    constexpr int size = 4;
    const reference::AdamWRates rates{0.01, 0.9, 0.99, 1e-8, 0};
    LoftMatrix x(size, size, size);
    x.beta1 = rates.beta1, x.beta2 = rates.beta2, x.eps = rates.eps;
    x.damping_a = x.damping_b = 1e-15;
    x.second_moment_turned = first_defect, x.updated_partner = second_defect;
    const auto drawn = [](const char* name, int i) { return normal(stream_key(3, name), i); };
    for (int i = 0; i < size * size; ++i) {
        x.a.x[i] = (i % (size + 1) == 0) + 0.2 * drawn("a", i);
        x.b.x[i] = (i % (size + 1) == 0) + 0.2 * drawn("b", i);
        x.w[i] = drawn("w", i);
    }
    x.start();
    const Array at_start = x.effective();
    std::vector<reference::AdamWNumber> whole(size * size);
    for (int i = 0; i < size * size; ++i) whole[i].value = at_start[i];
    for (int step = 0; step < 12; ++step) {
        const auto gradient = [&](int i, double w) {
            return w - drawn("target", i) + 0.5 * drawn("noise", step * size * size + i);
        };
        const Array now = x.effective();
        Array g;
        for (int i = 0; i < size * size; ++i) g.push_back(gradient(i, now[i]));
        x.set_gradients(g);
        x.move(1, rates.lr, 0);
        for (int i = 0; i < size * size; ++i)
            reference::adamw(whole[i], gradient(i, whole[i].value), step + 1, rates);
    }
    double difference = 0, largest = 0;
    const Array at_end = x.effective();
    for (int i = 0; i < size * size; ++i) {
        difference = std::max(difference, std::fabs(at_end[i] - whole[i].value));
        largest = std::max(largest, std::fabs(whole[i].value - at_start[i]));
    }
    return difference / largest;
}

TEST(LoftReference, IsAdamWAtFullRankAndNotWithADefectOfTheReleasedCode) {
    const double correct = distance_from_adamw(false, false), first = distance_from_adamw(true, false),
                 second = distance_from_adamw(false, true);
    EXPECT_LE(correct, 1e-11);
    EXPECT_GE(first, 1e-3);
    EXPECT_GE(second, 1e-3);
    if (on_one_rank()) fmt::print("correct {:.1e}, defects {:.1e} and {:.1e}\n", correct, first, second);
}

/// Elements of trained tensors whose names end with `suffix` <- f(the name before it, row, column, value), by
/// global indices of long rows.
template <class F>
void set_values(TinyRun& run, const std::string& suffix, const F& f) {
    for (Parameter* p : run.state().model.parameters()) {
        const Shard& shard = p->shard;
        if (!shard.name.ends_with(suffix)) continue;
        const std::string stem = shard.name.substr(0, shard.name.size() - suffix.size());
        test::HostTensor values = test::host_copy(p->value);
        for (std::int64_t i = 0; i < shard.rows; ++i)
            for (std::int64_t j = 0; j < shard.cols; ++j) {
                const std::int64_t at = i * values.shape()[1] + j;
                values.set(at, f(stem, shard.row0 + i, shard.col0 + j, values.at(at)));
            }
        kernels::upload(values.bytes(), p->value);
    }
    run.state().optimizer.masters_from_values();
    run.state().weights_changed();
}

/// Both factors are square and well conditioned, so a step of either moves the whole weight. Losses, norms of
/// (reconstructed) gradients, and so their clipping, and weights are those of method full.
TEST(Loft, MovesWeightsAsAdamWAtFullRank) {
    constexpr int r = 24;
    const auto config_of = [&](std::vector<std::string> more) {
        more.insert(more.end(), {"--model.ffn_size=24", "--model.num_layers=1", "--model.init_std=0.2",
                                 "--optim.lr=0.003", "--optim.eps=1e-4", "--optim.schedule=constant",
                                 "--optim.warmup_steps=0", "--optim.beta2=0.99", "--optim.weight_decay=0"});
        return tiny_config(more);
    };
    const auto factor = [](const std::string& linear, const std::string& suffix, std::int64_t row,
                           std::int64_t k) {
        return (row == k ? 1 : 0) + 0.1 * normal(stream_key(5, linear + suffix), row * r + k);
    };
    const Config full = config_of({"--method.name=full"}),
                 loft = config_of({"--method.name=loft", fmt::format("--method.rank={}", r),
                                   "--method.damping_a=1e-15", "--method.damping_b=1e-15"});
    testing::for_each_layout(full, [&](const Config& here, const Topology& topology) {
        Config low_rank = loft;
        low_rank.parallel.tp = here.parallel.tp;
        TinyRun whole(here, topology), factors(low_rank, topology);
        for (const std::string suffix : {".lora_A", ".lora_B"})
            set_values(factors, suffix, [&](const std::string& linear, auto row, auto k, double) {
                return factor(linear, suffix, row, k);
            });
        set_values(whole, "_proj.weight", [&](const std::string& stem, auto i, auto j, double w) {
            for (int k = 0; k < r; ++k)
                w += factor(stem + "_proj", ".lora_B", i, k) * factor(stem + "_proj", ".lora_A", j, k);
            return w;
        });
        double largest_norm = 0;
        for (int step = 0; step < 12; ++step) {
            const StepResult expected = whole.step(), result = factors.step();
            EXPECT_NEAR(result.loss, expected.loss, 1e-10 * expected.loss) << "step " << step;
            EXPECT_NEAR(result.grad_norm, expected.grad_norm, 1e-10 * expected.grad_norm) << "step " << step;
            largest_norm = std::max(largest_norm, result.grad_norm);
        }
        EXPECT_GT(largest_norm, full.optim.clip_norm) << "nothing is clipped";
        const testing::WholeState expected = testing::whole_state(whole.state()),
                                  state = testing::whole_state(factors.state());
        int compared = 0;
        for (const auto& [name, base] : state) {
            if (!name.ends_with("_proj.weight")) continue;
            ++compared;
            const std::string linear = name.substr(0, name.size() - 7);
            Table a(r, r), b(r, r);
            a.x = state.at(linear + ".lora_A"), b.x = state.at(linear + ".lora_B");
            const Table product = b * a;
            const Array& weight = expected.at(name);
            double largest = 0, difference = 0;
            for (std::size_t i = 0; i < weight.size(); ++i) {
                largest = std::max(largest, std::fabs(weight[i]));
                difference = std::max(difference, std::fabs(base[i] + product.x[i] - weight[i]));
            }
            EXPECT_LE(difference, 1e-10 * largest) << name;
        }
        EXPECT_EQ(compared, topology.world.rank() == 0 ? 7 : 0);
    });
}

std::string refusal_of(const std::vector<std::string>& arguments) {
    const Config config = tiny_config(arguments);
    try {
        validate_run(config, 1);
    } catch (const UserError& error) {
        return error.what();
    }
    return "";
}

TEST(Loft, SaysWhyItsRankIsLimited) {
    const std::vector<std::string> sizes{"--method.name=loft", "--model.hidden_size=48",
                                         "--model.ffn_size=48"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), sizes.begin(), sizes.end());
        return refusal_of(more);
    };
    EXPECT_EQ(with({"--method.rank=32"}), "");
    EXPECT_NE(with({"--method.rank=33"}).find("grow with the square of the rank"), std::string::npos);
    EXPECT_EQ(option_integer(tiny_config({"--method.name=loft", "--model.hidden_size=240"}).method, "rank"),
              16);
}

TEST(Loft, TooSmallADampingIsAnError) {
    testing::expect_damping_error(tiny_config(arguments_of({})), "method.damping_b");
}

}  // namespace
}  // namespace switchyard
