// RMSNorm against the formula in all compute types; its gradient by central differences.
#include "kernels/norm.hpp"
#include "reference/norm.hpp"
#include "support/grad_check.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace norm_test {

constexpr double eps = 1e-5;

struct Case {
    DType dtype;
    std::int64_t rows, width;
};

class Norm : public ::testing::TestWithParam<Case> {};

TEST_P(Norm, ForwardEqualsFormula) {
    const auto [dtype, rows, width] = GetParam();
    const HostTensor x = HostTensor::normal(dtype, {rows, width}, "x", 3),
                     weight = HostTensor::normal(dtype, {width}, "w");
    HostTensor h(dtype, {rows, width}), rstd(accumulate_type(dtype), {rows});
    kernels::rms_norm_forward(x, weight, h, rstd, eps);
    const auto expected = reference::rms_norm(x.values(), weight.values(), eps);
    EXPECT_TRUE(close(h, expected.h, 2, width));
    EXPECT_TRUE(close(rstd, expected.rstd, 2, width));
}

TEST_P(Norm, AdditionComesFirstAndMayBeInPlace) {
    const auto [dtype, rows, width] = GetParam();
    const HostTensor x = HostTensor::normal(dtype, {rows, width}, "x"),
                     y = HostTensor::normal(dtype, {rows, width}, "y");
    const HostTensor weight = HostTensor::normal(dtype, {width}, "w");
    HostTensor sum(dtype, {rows, width}), h = sum.clone(), rstd(accumulate_type(dtype), {rows});
    kernels::add_rms_norm_forward(x, y, weight, sum, h, rstd, eps);
    Values added = x.values();
    const Values addend = y.values();
    for (std::size_t i = 0; i < added.size(); ++i) added[i] += addend[i];
    EXPECT_TRUE(close(sum, added, 1));
    // The norm is that of the stored, rounded sum, which backward reads.
    const auto expected = reference::rms_norm(sum.values(), weight.values(), eps);
    EXPECT_TRUE(close(h, expected.h, 2, width));
    EXPECT_TRUE(close(rstd, expected.rstd, 2, width));

    for (bool into_x : {true, false}) {
        HostTensor x2 = x.clone(), y2 = y.clone(), h2 = h.clone(), rstd2 = rstd.clone();
        HostTensor& target = into_x ? x2 : y2;
        kernels::add_rms_norm_forward(x2, y2, weight, target, h2, rstd2, eps);
        EXPECT_TRUE(same_bits(target, sum));
        EXPECT_TRUE(same_bits(h2, h));
        EXPECT_TRUE(same_bits(rstd2, rstd));
    }
}

HostTensor norm_scratch(const HostTensor& x) {
    return scratch_of(kernels::rms_norm_scratch_bytes(x.shape()[0], x.shape()[1], x.dtype()));
}

TEST_P(Norm, BackwardAddsTheFormula) {
    const auto [dtype, rows, width] = GetParam();
    const DType wide = accumulate_type(dtype);
    const HostTensor x = HostTensor::normal(dtype, {rows, width}, "x"),
                     weight = HostTensor::normal(dtype, {width}, "w");
    const HostTensor d_h = HostTensor::normal(dtype, {rows, width}, "d_h");
    HostTensor h(dtype, {rows, width}), rstd(wide, {rows});
    kernels::rms_norm_forward(x, weight, h, rstd, eps);
    HostTensor d_x = HostTensor::normal(dtype, {rows, width}, "d_x"),
               d_weight = HostTensor::normal(wide, {width}, "d_w");
    auto expected = reference::rms_norm_gradient(d_h.values(), x.values(), weight.values(), rstd.values());
    for (std::size_t i = 0; i < expected.x.size(); ++i) expected.x[i] += d_x.at(static_cast<std::int64_t>(i));
    for (std::size_t j = 0; j < expected.weight.size(); ++j)
        expected.weight[j] += d_weight.at(static_cast<std::int64_t>(j));
    kernels::rms_norm_backward(d_h, x, weight, rstd, d_x, d_weight, norm_scratch(x));
    EXPECT_TRUE(close(d_x, expected.x, 2, width));
    EXPECT_TRUE(close(d_weight, expected.weight, 2, rows));
}

std::vector<Case> cases() {
    std::vector<Case> cases;
    for (DType dtype : compute_types)
        for (auto [rows, width] : {std::pair{1, 1},
                                   {5, 7},
                                   {3, 64},
                                   {watched() ? 19 : 70, 33},
                                   {0, 16},
                                   {watched() ? 20 : 300, 130},
                                   {11, 520},
                                   {2, 4104}})
            cases.push_back({dtype, rows, width});
    return cases;
}
INSTANTIATE_TEST_SUITE_P(Types, Norm, ::testing::ValuesIn(cases()));

TEST(NormGradient, PassesCentralDifferences) {
    const Shape shape{3, 5};
    HostTensor x = HostTensor::normal(DType::f64, shape, "x"),
               weight = HostTensor::normal(DType::f64, {5}, "w");
    const HostTensor d_h = HostTensor::normal(DType::f64, shape, "d_h");
    HostTensor h(DType::f64, shape), rstd(DType::f64, {3}), d_x(DType::f64, shape), d_weight(DType::f64, {5});
    const auto loss = [&] {
        kernels::rms_norm_forward(x, weight, h, rstd, eps);
        return dot(d_h, h);
    };
    loss();
    kernels::rms_norm_backward(d_h, x, weight, rstd, d_x, d_weight, norm_scratch(x));
    EXPECT_TRUE(gradient_matches(x, d_x, loss));
    EXPECT_TRUE(gradient_matches(weight, d_weight, loss));
}

TEST(NormGradient, PassesCentralDifferencesBehindTheAddition) {
    // The sum is also the residual stream, so its gradient d_sum is added to that through the norm; x and y
    // get the same gradient.
    const Shape shape{3, 5};
    HostTensor x = HostTensor::normal(DType::f64, shape, "x"), y = HostTensor::normal(DType::f64, shape, "y"),
               weight = HostTensor::normal(DType::f64, {5}, "w");
    const HostTensor d_h = HostTensor::normal(DType::f64, shape, "d_h"),
                     d_sum = HostTensor::normal(DType::f64, shape, "d_sum");
    HostTensor sum(DType::f64, shape), h(DType::f64, shape), rstd(DType::f64, {3});
    HostTensor d_x = d_sum.clone(), d_weight(DType::f64, {5});
    const auto loss = [&] {
        kernels::add_rms_norm_forward(x, y, weight, sum, h, rstd, eps);
        return dot(d_h, h) + dot(d_sum, sum);
    };
    loss();
    kernels::rms_norm_backward(d_h, sum, weight, rstd, d_x, d_weight, norm_scratch(sum));
    EXPECT_TRUE(gradient_matches(x, d_x, loss));
    EXPECT_TRUE(gradient_matches(y, d_x, loss));
    EXPECT_TRUE(gradient_matches(weight, d_weight, loss));
}

}  // namespace norm_test
}  // namespace switchyard::test
