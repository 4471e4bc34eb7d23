// RANKS: 1 3
// Step 0 of low-rank methods: factors and candidates are as drawn, and W + s B A is the plain initial weight,
// so that the model starts as the same function with every method.
#include <gtest/gtest.h>

#include "methods/low_rank_method.hpp"
#include "support/layouts.hpp"
#include "support/tiny_run.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace {

using test::Values;
using testing::tiny_config;
using testing::TinyRun;
using testing::WholeState;

constexpr std::int64_t hidden = 24, ffn = 37, low_rank = 6;

/// Standard deviations of equation 3, gain 1 / sqrt(3).
double std_a(double m, double n, double r) {
    return std::pow(std::sqrt(m) * r / (std::sqrt(n) * n), 0.25) * std::pow(3.0, -0.25);
}
double std_b(double m, double n, double r) {
    return std::pow(r / std::sqrt(m * n), 0.25) * std::pow(3.0, -0.25);
}

TEST(InitialWeightsTest, BoundsAreThoseOfThePaper) {
    // Square matrices of the paper's sizes: both deviations are the same.
    for (const auto& [n, r, expected] :
         {std::tuple{768, 128, 0.4855}, {1024, 256, 0.5373}, {2048, 512, 0.5373}})
        for (const double bound : {switchlora_bounds(n, n, r).a, switchlora_bounds(n, n, r).b})
            EXPECT_NEAR(bound / std::sqrt(3.0), expected, 5e-5);
    for (const auto& [m, n, r] : {std::tuple{2048, 768, 128}, {768, 2048, 128}, {37, 24, 6}}) {
        const FactorBounds bounds = switchlora_bounds(m, n, r);
        EXPECT_NEAR(bounds.a, std::sqrt(3.0) * std_a(m, n, r), 1e-15);
        EXPECT_NEAR(bounds.b, std::sqrt(3.0) * std_b(m, n, r), 1e-15);
        // Their derivation: std((1/r) B A x) = gain for unit x, and both factors change W equally.
        const double a = bounds.a / std::sqrt(3.0), b = bounds.b / std::sqrt(3.0), gain = 1 / std::sqrt(3.0);
        EXPECT_NEAR(a * b, gain * std::sqrt(static_cast<double>(r) / n), 1e-14);
        EXPECT_NEAR(std::sqrt(n) * a * a, std::sqrt(m) * b * b, 1e-12);
    }
}

struct Matrix {
    std::string name;
    std::int64_t m, n;
};
const std::vector<Matrix> matrices{{"model.layers.0.self_attn.q_proj", hidden, hidden},
                                   {"model.layers.0.self_attn.o_proj", hidden, hidden},
                                   {"model.layers.1.mlp.gate_proj", ffn, hidden},
                                   {"model.layers.1.mlp.down_proj", hidden, ffn}};

Values effective(const WholeState& state, const Matrix& x, double scale) {
    Values w = state.at("/model/" + x.name + ".weight");
    const Values &a = state.at("/model/" + x.name + ".lora_A"), &b = state.at("/model/" + x.name + ".lora_B");
    for (std::int64_t i = 0; i < x.m; ++i)
        for (std::int64_t j = 0; j < x.n; ++j)
            for (std::int64_t slot = 0; slot < low_rank; ++slot)
                w[i * x.n + j] += scale * b[i * low_rank + slot] * a[slot * x.n + j];
    return w;
}

/// W is summed in f64 (k = 2, low_rank terms) and rounded once: an error of half a unit of its largest value,
/// for every W + s B A.
void expect_plain_weight(const WholeState& state, const Matrix& x, double scale, DType stored) {
    const Values w = effective(state, x, scale), &base = state.at("/model/" + x.name + ".weight");
    double largest = 0;
    for (double value : base) largest = std::max(largest, std::fabs(value));
    const double limit = largest * (2 * std::sqrt(double{low_rank}) * test::eps_of(DType::f64) +
                                    (stored == DType::f64 ? 0 : test::eps_of(stored) / 2));
    const std::uint64_t key = stream_key(0, x.name + ".weight");
    for (std::size_t i = 0; i < w.size(); ++i)
        ASSERT_NEAR(w[i], 0.02 * normal(key, i), limit) << x.name << " element " << i;
}

TEST(InitialWeightsTest, FactorsBesideTheBaseAreThePlainWeight) {
    for (const char* method : {"switchlora", "lora"})
        for (const char* dtype : {"f64", "f32", "bf16"}) {
            std::vector<std::string> arguments{std::string("--method.name=") + method,
                                               std::string("--run.dtype=") + dtype, "--method.alpha=3"};
            if (method == std::string("lora")) arguments.push_back("--method.init=switchlora");
            testing::for_each_layout(tiny_config(arguments), [&](const Config& here,
                                                                 const Topology& topology) {
                TinyRun run(here, topology);
                const WholeState state = testing::whole_state(run.state());
                if (topology.world.rank() != 0) return;
                for (const Matrix& x : matrices)
                    expect_plain_weight(state, x, 0.5, dtype == std::string("f64") ? DType::f64 : DType::f32);
            });
        }
}

/// A bank as drawn, candidate by candidate, with the mean and deviation of its numbers.
void expect_candidates(const Values& bank, const std::string& stream, double deviation, bool rounded) {
    const double bound = std::sqrt(3.0) * deviation, n = static_cast<double>(bank.size());
    const std::uint64_t key = stream_key(0, stream);
    double sum = 0, squares = 0;
    for (std::size_t i = 0; i < bank.size(); ++i) {
        const double drawn = bound * (2 * uniform(key, i) - 1);
        ASSERT_NEAR(bank[i], drawn, (rounded ? test::eps_of(DType::bf16) / 2 : 1e-15) * std::fabs(drawn))
            << stream << " " << i;
        sum += bank[i];
        squares += bank[i] * bank[i];
    }
    // Five standard deviations of the mean, and of the mean square of a uniform variable (4/5 sigma^4 / n).
    EXPECT_NEAR(sum / n, 0, 5 * deviation / std::sqrt(n));
    EXPECT_NEAR(squares / n, deviation * deviation, 5 * deviation * deviation * std::sqrt(0.8 / n));
}

TEST(InitialWeightsTest, CandidatesAreDrawnAlikeActiveOrNot) {
    for (const char* dtype : {"f64", "bf16"})
        testing::for_each_layout(
            tiny_config({std::string("--run.dtype=") + dtype}),
            [&](const Config& here, const Topology& topology) {
                TinyRun run(here, topology);
                const WholeState state = testing::whole_state(run.state());
                if (topology.world.rank() != 0) return;
                for (const Matrix& x : matrices) {
                    const std::string path = "/method/" + x.name + "/bank_";
                    const Values &a = state.at(path + "A"), &b = state.at(path + "B");
                    const bool rounded = dtype == std::string("bf16");
                    EXPECT_EQ(a.size(), static_cast<std::size_t>(hidden * x.n));
                    EXPECT_EQ(b.size(), static_cast<std::size_t>(hidden * x.m));
                    expect_candidates(a, x.name + ".lora_A candidates", std_a(x.m, x.n, low_rank), rounded);
                    expect_candidates(b, x.name + ".lora_B candidates", std_b(x.m, x.n, low_rank), rounded);
                    const Values& active = state.at("/model/" + x.name + ".lora_A");
                    EXPECT_TRUE(std::equal(active.begin(), active.end(), a.end() - low_rank * x.n))
                        << "A starts with the last candidates";
                }
            });
}

TEST(InitialWeightsTest, TheFirstLossIsThatOfTheDenseModel) {
    const Topology one = testing::serial();
    const double dense = TinyRun(tiny_config({"--method.name=full"}), one).losses(1)[0];
    for (const char* method : {"switchlora", "lora"})
        testing::for_each_layout(tiny_config({std::string("--method.name=") + method}),
                                 [&](const Config& here, const Topology& topology) {
                                     EXPECT_NEAR(TinyRun(here, topology).losses(1)[0], dense, 1e-13 * dense)
                                         << method;
                                 });
}

TEST(InitialWeightsTest, PlainLoraStartsWithBZero) {
    testing::for_each_layout(tiny_config({"--method.name=lora"}),
                             [&](const Config& here, const Topology& topology) {
                                 TinyRun run(here, topology);
                                 const WholeState state = testing::whole_state(run.state());
                                 if (topology.world.rank() != 0) return;
                                 for (const Matrix& x : matrices) {
                                     for (double value : state.at("/model/" + x.name + ".lora_B"))
                                         ASSERT_EQ(value, 0);
                                     double largest = 0;
                                     for (double value : state.at("/model/" + x.name + ".lora_A"))
                                         largest = std::max(largest, std::fabs(value));
                                     EXPECT_LE(largest, 1 / std::sqrt(static_cast<double>(x.n)));
                                     EXPECT_GT(largest, 0.9 / std::sqrt(static_cast<double>(x.n)));
                                 }
                             });
}

}  // namespace
}  // namespace switchyard
