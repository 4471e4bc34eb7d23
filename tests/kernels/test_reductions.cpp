// Reductions into back-end memory against loops in double: sizes around the block length, values that are not
// finite, any number of threads.
#include "kernels/reductions.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace reductions_test {

const std::vector<std::int64_t> sizes = watched()
                                            ? std::vector<std::int64_t>{0, 1, 33, 1030}
                                            : std::vector<std::int64_t>{0, 1, 7, 16, 33, 4095, 4097, 50001};

double squared_norm(Tensor x) {
    HostTensor result(DType::f64, {1}, {-1});
    kernels::squared_norm(x, result);
    return result.at(0);
}
double max_abs(Tensor x) {
    HostTensor result(DType::f64, {1}, {-1});
    kernels::max_abs(x, result);
    return result.at(0);
}

class ReductionTypes : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(ReductionTypes, ReductionTypes, ::testing::ValuesIn(compute_types));

TEST_P(ReductionTypes, NormsEqualTheLoopInDouble) {
    for (std::int64_t n : sizes) {
        const HostTensor x = HostTensor::normal(GetParam(), {n}, "x");
        double squares = 0, largest = 0;
        for (double value : x.values())
            squares += value * value, largest = std::max(largest, std::fabs(value));
        // Sums are in f64 for every type: k = 1.
        EXPECT_NEAR(squared_norm(x), squares, std::sqrt(n + 1.0) * 0x1p-52 * squares);
        EXPECT_EQ(max_abs(x), largest);
    }
}

TEST_P(ReductionTypes, NormsPropagateWhatIsNotFinite) {
    for (std::int64_t n : {1, 33, watched() ? 2000 : 20000})
        for (std::int64_t place : {std::int64_t{0}, n / 2, n - 1}) {
            HostTensor x = HostTensor::normal(GetParam(), {n}, "x");
            x.set(place, -INFINITY);
            EXPECT_EQ(squared_norm(x), INFINITY);
            EXPECT_EQ(max_abs(x), INFINITY);
            x.set(n - 1 - place, NAN);
            EXPECT_TRUE(std::isnan(squared_norm(x)));
            EXPECT_TRUE(std::isnan(max_abs(x)));
        }
}

TEST_P(ReductionTypes, NormsDoNotDependOnTheNumberOfThreads) {
    const HostTensor x = HostTensor::normal(GetParam(), {watched() ? 5001 : 123457}, "x");
    double alone = 0;
    {
        const Threads scope(1);
        alone = squared_norm(x);
    }
    for (int count : {2, 3, 8}) {
        const Threads scope(count);
        EXPECT_EQ(squared_norm(x), alone);
    }
}

TEST(Reductions, WeightedSumsAndPartsRunInOrder) {
    const HostTensor values = HostTensor::normal(DType::f64, {5}, "values"),
                     weights(DType::f64, {5}, {1, 0, 1, 1, 0});
    HostTensor sum(DType::f64, {1});
    kernels::weighted_sum(values, weights, sum);
    EXPECT_EQ(sum.at(0), (values.at(0) + values.at(2)) + values.at(3));

    const HostTensor parts = HostTensor::normal(DType::f64, {4, 3}, "parts");
    HostTensor result(DType::f64, {3});
    kernels::combine_parts(parts, kernels::Combine::sum, result);
    for (int j = 0; j < 3; ++j)
        EXPECT_EQ(result.at(j), ((parts.at(j) + parts.at(3 + j)) + parts.at(6 + j)) + parts.at(9 + j));
    kernels::combine_parts(parts, kernels::Combine::max, result);
    for (int j = 0; j < 3; ++j)
        EXPECT_EQ(result.at(j), std::max({parts.at(j), parts.at(3 + j), parts.at(6 + j), parts.at(9 + j)}));
}

TEST(Reductions, SumsAndMaximaOfPartsSayWhatIsNotANumber) {
    for (int place : {0, 1, 2}) {
        HostTensor parts(DType::f64, {3, 1}, {1, 5, 3}), result(DType::f64, {1});
        parts.set(place, NAN);
        for (kernels::Combine how : {kernels::Combine::sum, kernels::Combine::max}) {
            kernels::combine_parts(parts, how, result);
            EXPECT_TRUE(std::isnan(result.at(0))) << place;
        }
    }
}

TEST(Reductions, ChangesAreMeasuredByWhatIsRounded) {
    HostTensor ratios(DType::f64, {2});
    const auto measure = [&](double effective, double change, double before, double after) {
        kernels::change_ratios(HostTensor(DType::f64, {4}, {effective, change, before, after}), ratios);
        return ratios.values();
    };
    EXPECT_EQ(measure(4, 1, 2, 8), (Values{0.25, 0.125}));
    EXPECT_EQ(measure(4, 1, 16, 8), (Values{0.25, 0.0625}));
    EXPECT_EQ(measure(4, 1, 2, 1), (Values{0.25, 0.25}));
    EXPECT_EQ(measure(0, 0, 0, 0), (Values{0, 0}));  // a rank without rows
    EXPECT_TRUE(std::isnan(measure(1, NAN, 1, 1)[1]));
}

}  // namespace reductions_test
}  // namespace switchyard::test
