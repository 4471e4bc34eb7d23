// Initial values: the numbers of core/rng.hpp at every global index, for every slice of a rank; moments;
// padding.
#include "kernels/random.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

using kernels::Region;

class Random : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, Random, ::testing::ValuesIn(compute_types));

TEST_P(Random, SlicesHoldTheNumbersOfTheWhole) {
    const std::int64_t rows = 13,
                       cols = watched() ? 411 : 4111;  // odd, so that rows start at odd global indices
    const std::uint64_t key = stream_key(5, "weight");
    const auto fill = [&](bool normal, Tensor x, const Region& region) {
        normal ? kernels::fill_normal(x, region, key, 0.02) : kernels::fill_uniform(x, region, key, 0.5);
    };
    for (bool normal : {true, false}) {
        HostTensor whole(GetParam(), {rows, cols});
        fill(normal, whole, {cols, 0, 0, rows, cols});
        for (std::int64_t i = 0; i < whole.size(); ++i) {
            const auto index = static_cast<std::uint64_t>(i);
            const double value =
                normal ? 0.02 * switchyard::normal(key, index) : 0.5 * (2 * uniform(key, index) - 1);
            HostTensor one(GetParam(), {1}, {value});
            ASSERT_EQ(whole.at(i), one.at(0)) << i;
        }
        for (Region r : {Region{cols, 0, 0, 5, 7},
                         {cols, 3, 1, 4, cols - 11},
                         {cols, 12, cols - 1, 1, 1},
                         {cols, 1, 2, 2, 3}}) {
            const std::int64_t padded_rows = r.valid_rows + 2, padded_cols = r.valid_cols + 3;
            HostTensor slice = HostTensor::normal(GetParam(), {padded_rows, padded_cols}, "overwritten");
            fill(normal, slice, r);
            for (std::int64_t i = 0; i < padded_rows; ++i)
                for (std::int64_t j = 0; j < padded_cols; ++j) {
                    const bool valid = i < r.valid_rows && j < r.valid_cols;
                    ASSERT_EQ(slice.at(i * padded_cols + j),
                              valid ? whole.at((r.row0 + i) * cols + r.col0 + j) : 0);
                }
        }
    }
}

TEST_P(Random, NoiseIsAddedToEachRowOfASlice) {
    const std::int64_t global_cols = 211;
    const std::uint64_t key = stream_key(5, "noise");
    const DType wide = accumulate_type(GetParam());
    for (Region r : {Region{global_cols, 0, 0, 6, 211}, {global_cols, 3, 1, 4, 200}, {global_cols, 12, 210, 1, 1}}) {
        const std::int64_t rows = r.valid_rows + 2, cols = r.valid_cols + 3;
        HostTensor x = HostTensor::normal(GetParam(), {rows, cols}, "weights");
        HostTensor scale = HostTensor::normal(wide, {rows}, "scales");
        const Values before = x.values();
        kernels::add_normal(x, r, key, 0.75, scale);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < cols; ++j) {
                const std::int64_t at = i * cols + j;
                const bool valid = i < r.valid_rows && j < r.valid_cols;
                const auto index = static_cast<std::uint64_t>((r.row0 + i) * global_cols + r.col0 + j);
                HostTensor noise(wide, {1}, {0.75 * scale.at(i) * switchyard::normal(key, index)});
                const double sum = before[at] + noise.at(0);
                HostTensor expected(GetParam(), {1}, {GetParam() == DType::f64 ? sum : static_cast<float>(sum)});
                ASSERT_EQ(x.at(at), valid ? expected.at(0) : before[at]) << i << ", " << j;
            }
    }
}

TEST_P(Random, ARegionMayReachBeyondTheTensorOrBeEmpty) {
    HostTensor x(GetParam(), {2, 3}), y(GetParam(), {2, 3});
    kernels::fill_normal(x, {3, 0, 0, 100, 3}, 1, 1);
    kernels::fill_normal(y, {3, 0, 0, 2, 3}, 1, 1);
    EXPECT_TRUE(same_bits(x, y));
    kernels::fill_normal(x, {3, 0, 0, 0, 3}, 1, 1);
    EXPECT_EQ(x.values(), Values(6, 0.0));
    kernels::fill_normal(HostTensor(GetParam(), {0, 3}), {3, 0, 0, 0, 3}, 1, 1);
}

TEST_P(Random, MomentsAreThoseOfTheDistribution) {
    const std::int64_t n = watched() ? 4000 : 400000;
    HostTensor x(GetParam(), {n / 1000, 1000});
    const auto moment = [&](int power) {
        double sum = 0;
        for (double value : x.values()) sum += std::pow(value, power);
        return sum / static_cast<double>(n);
    };
    const double error =
        5 / std::sqrt(static_cast<double>(n));  // five standard deviations of a mean of unit variance
    const double rounding = eps_of(GetParam());
    kernels::fill_normal(x, {1000, 0, 0, n / 1000, 1000}, stream_key(1, "moments"), 2);
    EXPECT_NEAR(moment(1), 0, 2 * error);
    EXPECT_NEAR(moment(2), 4, 4 * (std::sqrt(2.0) * error + rounding));
    EXPECT_NEAR(moment(4), 48, 16 * (std::sqrt(96.0) * error + 3 * rounding));
    // Neighbours share a Philox block and must not be correlated.
    double product = 0;
    for (std::int64_t i = 0; i + 1 < n; ++i) product += x.at(i) * x.at(i + 1) / 4;
    EXPECT_NEAR(product / static_cast<double>(n), 0, error);

    kernels::fill_uniform(x, {1000, 0, 0, n / 1000, 1000}, stream_key(1, "moments"), 3);
    EXPECT_NEAR(moment(1), 0, std::sqrt(3.0) * error);
    EXPECT_NEAR(moment(2), 3, 9 * (std::sqrt(4.0 / 45) * error + rounding));
    for (double value : x.values()) ASSERT_LE(std::fabs(value), 3);
}

TEST(RandomKeys, DifferentStreamsDiffer) {
    HostTensor x(DType::f64, {1, 8}), y(DType::f64, {1, 8});
    kernels::fill_normal(x, {8, 0, 0, 1, 8}, stream_key(1, "a"), 1);
    kernels::fill_normal(y, {8, 0, 0, 1, 8}, stream_key(1, "b"), 1);
    for (std::int64_t i = 0; i < 8; ++i) EXPECT_NE(x.at(i), y.at(i));
}

}  // namespace
}  // namespace switchyard::test
