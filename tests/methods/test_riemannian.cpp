// RANKS: 1 2 3 4
// Riemannian preconditioned LoRA on every layout against a reference on one process
// (reference/riemannian.hpp) over 100 steps in f64; gradients against differences; what a preconditioner must
// do: no difference between (B, A) and (B c, A / c), plain gradients where the damping is large, and an error
// where it is too small.
#include <gtest/gtest.h>

#include "methods/low_rank_method.hpp"
#include "reference/riemannian.hpp"
#include "support/factor_differences.hpp"

namespace switchyard {
namespace riemannian_test {

using reference::Array;
using reference::RiemannianMatrix;
using reference::Trained;
using test::Values;
using testing::tiny_config;
using testing::TinyRun;

std::vector<std::string> arguments_of(std::vector<std::string> more) {
    more.insert(more.begin(), {"--method.name=riemannian", "--method.rank=5", "--method.alpha=4",
                               "--model.init_std=0.2", "--model.num_layers=1", "--optim.lr=0.003",
                               "--optim.eps=1e-4", "--optim.schedule=constant", "--optim.warmup_steps=0"});
    return more;
}

bool on_one_rank() {
    return Comm::duplicate(MPI_COMM_WORLD).size() == 1;
}

void expect_reference(const std::vector<std::string>& arguments, int steps) {
    const Config config = tiny_config(arguments_of(arguments));
    const bool both = option_text(config.method, "init") == "switchlora";
    const auto make = [&](const std::string& linear, int m, int n) {
        RiemannianMatrix x(m, n, 5, 4);
        x.damping = option_real(config.method, "damping");
        x.subtracts = both;
        const FactorBounds bounds = switchlora_bounds(m, n, x.r);
        const auto draw = [&](Trained& factor, const std::string& name, double bound) {
            const std::uint64_t stream = stream_key(config.run.seed, linear + name);
            for (int k = 0; k < x.r; ++k)
                for (int j = 0; j < factor.rows; ++j)
                    factor.value(j, k) = bound * (2 * uniform(stream, k * factor.rows + j) - 1);
        };
        draw(x.a, ".lora_A", both ? bounds.a : 1 / std::sqrt(static_cast<double>(n)));
        if (both) draw(x.b, ".lora_B", bounds.b);
        return x;
    };
    testing::expect_reference<RiemannianMatrix>(config, steps, make, 1e-10);
}

TEST(Riemannian, EqualsOneProcess) {
    expect_reference({}, 100);
}

TEST(Riemannian, SmallDampingOfTwoDrawnFactorsEqualsOneProcess) {
    expect_reference({"--method.init=switchlora", "--method.damping=1e-7"}, 12);
}

TEST(Riemannian, ShardedWeightsAndRecomputationEqualOneProcess) {
    expect_reference({"--parallel.shard_frozen=true", "--model.recompute=true", "--method.strategy=unmerged"},
                     12);
}

/// The gradients of all factors in a step, before or after the method's work on them.
std::map<std::string, Values> gradients_of(TinyRun& run, bool preconditioned) {
    std::map<std::string, Values> gradients;
    auto& hooked = testing::HookedMethod::install(run.state());
    (preconditioned ? hooked.after_before_update : hooked.after_reduction) = [&] {
        gradients = testing::factors_of(run.state(), &Parameter::gradient);
    };
    run.step();
    return gradients;
}

double largest_of(const Values& values) {
    double largest = 0;
    for (const double x : values) largest = std::max(largest, std::fabs(x));
    return largest;
}

/// A factor (long, r) <- f of it.
void change_factors(TinyRun& run, const std::string& suffix, const std::function<double(double)>& f) {
    for (Parameter* p : run.state().model.parameters())
        if (p->shard.name.ends_with(suffix)) {
            test::HostTensor values = test::host_copy(p->value);
            for (std::int64_t i = 0; i < values.size(); ++i) values.set(i, f(values.at(i)));
            kernels::upload(values.bytes(), p->value);
        }
    run.state().optimizer.masters_from_values();
    run.state().weights_changed();
}

TEST(Riemannian, GradientsAreDifferencesOfTheLoss) {
    if (!on_one_rank()) GTEST_SKIP() << "on one rank";
    testing::expect_factor_differences(tiny_config(arguments_of({})), 4);
}

/// Scaled gradient descent moves B A by dB~ A + B dA~, the same for (B, A) and (B c, A / c). Its gradients
/// without preconditioner differ by c^2.
TEST(Riemannian, TheMoveOfTheProductDoesNotDependOnHowItIsShared) {
    if (!on_one_rank()) GTEST_SKIP() << "on one rank";
    const Config config = tiny_config(arguments_of({"--method.init=switchlora", "--method.damping=1e-12"}));
    const Topology one = testing::serial();
    std::map<std::string, Values> moves[2];
    for (const bool preconditioned : {true, false}) {
        for (const int scaled : {0, 1}) {
            TinyRun run(config, one);
            run.losses(3);
            const double c = scaled == 1 ? 5 : 1;
            change_factors(run, ".lora_B", [c](double x) { return c * x; });
            change_factors(run, ".lora_A", [c](double x) { return x / c; });
            const std::map<std::string, Values> factors = testing::factors_of(run.state(), &Parameter::value);
            const std::map<std::string, Values> gradients = gradients_of(run, preconditioned);
            for (const auto& [name, d_a] : gradients) {
                if (!name.ends_with(".lora_A")) continue;
                const std::string b_name = name.substr(0, name.size() - 1) + "B";
                const Values &a = factors.at(name), &b = factors.at(b_name), &d_b = gradients.at(b_name);
                Values& move = moves[scaled][name];
                move.clear();
                for (std::size_t i = 0; i < b.size(); i += 5)
                    for (std::size_t j = 0; j < a.size(); j += 5) {
                        double sum = 0;
                        for (std::size_t k = 0; k < 5; ++k)
                            sum += d_b[i + k] * a[j + k] + b[i + k] * d_a[j + k];
                        move.push_back(sum);
                    }
            }
        }
        for (const auto& [name, move] : moves[0]) {
            const double largest = largest_of(move);
            double difference = 0;
            for (std::size_t i = 0; i < move.size(); ++i)
                difference = std::max(difference, std::fabs(move[i] - moves[1].at(name)[i]));
            EXPECT_GT(largest, 0) << name;
            if (preconditioned) {
                EXPECT_LE(difference, 1e-8 * largest) << name;
            } else {
                EXPECT_GE(difference, 0.5 * largest) << name << ": nothing to be compensated";
            }
        }
    }
}

/// (gram + d I)^-1 is 1 / d for a large d; with B = 0 it is so for dA, which is 0, at any d.
TEST(Riemannian, LargeDampingLeavesPlainGradients) {
    if (!on_one_rank()) GTEST_SKIP() << "on one rank";
    const Topology one = testing::serial();
    const Config config = tiny_config(arguments_of({"--method.damping=1e8"}));
    TinyRun plain(config, one), run(config, one);
    const auto first = gradients_of(run, true);
    for (const auto& [name, gradient] : first) {
        for (const double x : gradient) {
            EXPECT_TRUE(std::isfinite(x)) << name;
            if (name.ends_with(".lora_A")) {
                EXPECT_EQ(x, 0);
            }
        }
    }
    const auto expected = gradients_of(plain, false);
    for (const auto& [name, gradient] : first)
        for (std::size_t i = 0; i < gradient.size(); ++i)
            EXPECT_NEAR(1e8 * gradient[i], expected.at(name)[i], 1e-7 * largest_of(expected.at(name)))
                << name;
}

TEST(Riemannian, TooSmallADampingIsAnError) {
    testing::expect_damping_error(tiny_config(arguments_of({"--method.damping=1e-9"})), "method.damping");
}

}  // namespace riemannian_test
}  // namespace switchyard
