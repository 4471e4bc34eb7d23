// SwiGLU against its formula in all compute types, in place and not; its gradient by central differences; the
// exponential and the reductions in lanes that SwiGLU, attention, norms and the loss use.
#include "kernels/cpu/vector_math.hpp"
#include "kernels/swiglu.hpp"
#include "reference/swiglu.hpp"
#include "support/grad_check.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

class SwiGlu : public ::testing::TestWithParam<std::tuple<DType, std::int64_t>> {};

TEST_P(SwiGlu, EqualsFormula) {
    const auto [dtype, n] = GetParam();
    const Shape shape{n, 3};
    const HostTensor gate = HostTensor::normal(dtype, shape, "gate", 4),
                     up = HostTensor::normal(dtype, shape, "up");
    const HostTensor d_a = HostTensor::normal(dtype, shape, "d_a");
    HostTensor a(dtype, shape), d_gate(dtype, shape), d_up(dtype, shape), again(dtype, shape);
    kernels::swiglu_forward(gate, up, a);
    kernels::swiglu_backward(d_a, gate, up, d_gate, d_up, again);
    Values expected, expected_gate, expected_up;
    for (std::int64_t i = 0; i < gate.size(); ++i) {
        expected.push_back(reference::silu(gate.at(i)) * up.at(i));
        expected_gate.push_back(d_a.at(i) * up.at(i) * reference::silu_slope(gate.at(i)));
        expected_up.push_back(d_a.at(i) * reference::silu(gate.at(i)));
    }
    EXPECT_TRUE(close(a, expected, 4));
    EXPECT_TRUE(close(d_gate, expected_gate, 4));
    EXPECT_TRUE(close(d_up, expected_up, 4));
    EXPECT_TRUE(same_bits(again, a));

    HostTensor gate2 = gate.clone(), up2 = up.clone(), d_a2 = d_a.clone();
    kernels::swiglu_backward(d_a2, gate2, up2, gate2, up2, d_a2);
    EXPECT_TRUE(same_bits(gate2, d_gate));
    EXPECT_TRUE(same_bits(up2, d_up));
    EXPECT_TRUE(same_bits(d_a2, a));
    HostTensor gate3 = gate.clone(), up3 = up.clone();
    kernels::swiglu_backward(d_a, gate3, up3, gate3, up3, {});
    EXPECT_TRUE(same_bits(gate3, d_gate));
    EXPECT_TRUE(same_bits(up3, d_up));
}

INSTANTIATE_TEST_SUITE_P(Types, SwiGlu,
                         ::testing::Combine(::testing::ValuesIn(compute_types),
                                            ::testing::Values<std::int64_t>(0, 1, 7, 85,
                                                                            watched() ? 701 : 7001)));

TEST(SwiGluLimits, LargeGatesNeitherOverflowNorLoseTheirSign) {
    const HostTensor gate(DType::f32, {4}, {-200, 200, -1e30, 1e30}), up(DType::f32, {4}, {1, 1, 1, 1});
    HostTensor a(DType::f32, {4});
    kernels::swiglu_forward(gate, up, a);
    EXPECT_EQ(a.at(0), 0);
    EXPECT_EQ(a.at(1), 200);
    EXPECT_EQ(a.at(2), 0);
    EXPECT_EQ(a.at(3), static_cast<double>(1e30f));
}

TEST(SwiGluGradient, PassesCentralDifferences) {
    const Shape shape{2, 4};
    HostTensor gate = HostTensor::normal(DType::f64, shape, "gate"),
               up = HostTensor::normal(DType::f64, shape, "up");
    const HostTensor d_a = HostTensor::normal(DType::f64, shape, "d_a");
    HostTensor a(DType::f64, shape), d_gate(DType::f64, shape), d_up(DType::f64, shape);
    kernels::swiglu_backward(d_a, gate, up, d_gate, d_up, {});
    const auto loss = [&] {
        kernels::swiglu_forward(gate, up, a);
        return dot(d_a, a);
    };
    EXPECT_TRUE(gradient_matches(gate, d_gate, loss));
    EXPECT_TRUE(gradient_matches(up, d_up, loss));
}

TEST(Exponential, IsWithinTwoUnitsInTheLastPlace) {
    double worst = 0;
    for (double x = -87; x < 87; x += 1.0 / 1024 + 1e-7) {
        const float argument = static_cast<float>(x);
        const double exact = std::exp(static_cast<double>(argument));
        const float below = static_cast<float>(exact);
        const double unit = static_cast<double>(std::nextafter(below, INFINITY)) - below;
        worst = std::max(worst, std::fabs(kernels::exponential(argument) - exact) / unit);
    }
    EXPECT_LT(worst, 2);
}

TEST(Exponential, HasTheRightLimits) {
    EXPECT_EQ(kernels::exponential(0.0f), 1.0f);
    EXPECT_EQ(kernels::exponential(-INFINITY), 0.0f);
    EXPECT_EQ(kernels::exponential(-1e30f), 0.0f);
    EXPECT_EQ(kernels::exponential(-87.001f), 0.0f);
    EXPECT_GT(kernels::exponential(-87.0f), 0.0f);
    EXPECT_TRUE(std::isnan(kernels::exponential(NAN)));
}

TEST(Sigmoid, IsWithinFourUnitsInTheLastPlaceOnBothSides) {
    double worst = 0;
    for (double x = -80; x < 80; x += 1.0 / 256 + 1e-7) {
        const float argument = static_cast<float>(x);
        const double exact = 1 / (1 + std::exp(-static_cast<double>(argument)));
        worst = std::max(worst, std::fabs(kernels::sigmoid(argument) / exact - 1));
    }
    EXPECT_LT(worst, 4 * 1.2e-7);
    EXPECT_EQ(kernels::sigmoid(0.0f), 0.5f);
    EXPECT_EQ(kernels::sigmoid(INFINITY), 1.0f);
    EXPECT_EQ(kernels::sigmoid(-INFINITY), 0.0f);
    EXPECT_TRUE(std::isnan(kernels::sigmoid(NAN)));
}

// Lengths around whole rounds of lanes; the largest and the added elements lie in every position.
TEST(Lanes, SumAndMaximumTakeInEveryElementOnce) {
    for (std::int64_t n : {0, 1, 15, 31, 32, 33, 64, 95, 127}) {
        std::vector<float> x(static_cast<std::size_t>(n));
        for (std::int64_t i = 0; i < n; ++i) x[static_cast<std::size_t>(i)] = static_cast<float>(i - n);
        const float* data = x.data();
        const auto add = [=](std::int64_t j, float sum) { return sum + data[j]; };
        EXPECT_EQ(kernels::sum_over<float>(n, add), static_cast<float>(-n * (n + 1) / 2)) << n;
        for (std::size_t at = 0; at < x.size(); ++at) {
            x[at] = 5;
            EXPECT_EQ(kernels::maximum_of(data, n), 5) << n << ' ' << at;
            x[at] = -1000;
        }
    }
    EXPECT_EQ(kernels::maximum_of<float>(nullptr, 0), -INFINITY);
}

}  // namespace
}  // namespace switchyard::test
