// Copies, conversions and sums against loops in double, for all types and pairs of types, sizes around the
// block and vector lengths, and empty tensors.
#include "kernels/elementwise.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace elementwise_test {

const std::vector<std::int64_t> sizes = watched()
                                            ? std::vector<std::int64_t>{0, 1, 33, 1030}
                                            : std::vector<std::int64_t>{0, 1, 7, 16, 33, 4095, 4097, 50001};

using TypePair = std::tuple<DType, DType>;
class Pairs : public ::testing::TestWithParam<TypePair> {};
INSTANTIATE_TEST_SUITE_P(Types, Pairs,
                         ::testing::Combine(::testing::ValuesIn(compute_types),
                                            ::testing::ValuesIn(compute_types)));

/// `value` as a tensor of `dtype` stores it: one rounding to nearest even, by the library's rounding of
/// scaled integers.
double rounded(double value, DType dtype) {
    if (dtype == DType::f64 || value == 0) return value;
    const int bits = dtype == DType::f32 ? 24 : 8;
    int exponent = 0;
    const double fraction = std::frexp(value, &exponent);
    return std::ldexp(std::nearbyint(std::ldexp(fraction, bits)), exponent - bits);
}

TEST_P(Pairs, CopyRoundsOnce) {
    const auto [from, to] = GetParam();
    for (std::int64_t n : sizes) {
        const HostTensor x = HostTensor::normal(from, {n}, "x");
        HostTensor y(to, {n});
        kernels::copy(x, y);
        for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(y.at(i), rounded(x.at(i), to)) << i;
    }
}

TEST(Copy, RoundsTiesToEvenAndNeverTwice) {
    // Around the middle between the bf16 neighbours 1 and 1 + 2^-7, and 1 + 2^-7 and 1 + 2^-6; the offsets of
    // 2^-40 vanish in f32.
    const Values values{1 + 0x1p-8,
                        1 + 0x1p-8 + 0x1p-40,
                        1 + 3 * 0x1p-8,
                        1 + 3 * 0x1p-8 - 0x1p-40,
                        -1 - 0x1p-8,
                        -1 - 0x1p-8 - 0x1p-40,
                        0,
                        -0.0};
    const HostTensor x(DType::f64, {8}, values);
    HostTensor y(DType::bf16, {8});
    kernels::copy(x, y);
    EXPECT_EQ(y.values(), (Values{1, 1 + 0x1p-7, 1 + 0x1p-6, 1 + 0x1p-7, -1, -1 - 0x1p-7, 0, 0}));
    EXPECT_TRUE(std::signbit(y.at(7)));
    const HostTensor special(DType::f64, {3}, {NAN, INFINITY, -INFINITY});
    HostTensor out(DType::bf16, {3});
    kernels::copy(special, out);
    EXPECT_TRUE(std::isnan(out.at(0)));
    EXPECT_EQ(out.at(1), INFINITY);
    EXPECT_EQ(out.at(2), -INFINITY);
}

TEST(Copy, MovesIntegersOfTheSameType) {
    for (DType dtype : {DType::i16, DType::i32, DType::i64}) {
        HostTensor x(dtype, {3}, {-5, 7, 12000}), y(dtype, {3});
        kernels::copy(x, y);
        EXPECT_EQ(y.values(), x.values());
    }
    HostTensor x(DType::i32, {3}), y(DType::f32, {3});
    EXPECT_THROW(kernels::copy(x, y), InternalError);
    EXPECT_THROW(kernels::copy(HostTensor(DType::f32, {2}), y), InternalError);
}

TEST_P(Pairs, AddRoundsOnce) {
    const auto [from, to] = GetParam();
    for (std::int64_t n : sizes)
        for (double alpha : {1.0, -0.375}) {
            const HostTensor x = HostTensor::normal(from, {n}, "x");
            HostTensor y = HostTensor::normal(to, {n}, "y");
            Values expected = y.values();
            for (std::int64_t i = 0; i < n; ++i) expected[i] += alpha * x.at(i);
            kernels::add(x, y, alpha);
            // f32 arithmetic on a sum that may cancel, then the rounding of the result: k = 1.
            EXPECT_TRUE(close(y, expected, 1)) << n;
        }
}

TEST(Add, SumsThatCancelLeaveWhatRemains) {
    const HostTensor x(DType::f32, {3}, {1e8, -3, 1});
    HostTensor y(DType::f64, {3}, {-1e8 + 0.5, 3, 1e-9});
    kernels::add(x, y);
    EXPECT_EQ(y.values(), (Values{0.5, 0, 1 + 1e-9}));
    HostTensor z(DType::bf16, {1}, {-1});
    kernels::add(HostTensor(DType::f32, {1}, {1.001}), z);
    EXPECT_NEAR(z.at(0), 0.001, 1e-5);
}

TEST_P(Pairs, TransposeMovesEveryElement) {
    const auto [from, to] = GetParam();
    for (auto [rows, cols] : {std::pair{0, 5}, {1, 9}, {9, 1}, {31, 33}, {64, 32}, {200, 131}}) {
        if (watched() && rows > 31) continue;
        const HostTensor x = HostTensor::normal(from, {rows, cols}, "x");
        HostTensor y(to, {cols, rows});
        kernels::transpose(x, y);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < cols; ++j)
                ASSERT_EQ(y.at(j * rows + i), rounded(x.at(i * cols + j), to));
    }
}

class Types : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, Types, ::testing::ValuesIn(compute_types));

TEST_P(Types, ZeroAndFillSetEveryElement) {
    for (std::int64_t n : sizes) {
        HostTensor x = HostTensor::normal(GetParam(), {n}, "x");
        kernels::fill(x, 0.3);
        EXPECT_EQ(x.values(), Values(static_cast<std::size_t>(n), rounded(0.3, GetParam())));
        kernels::zero(x);
        EXPECT_EQ(x.values(), Values(static_cast<std::size_t>(n), 0.0));
    }
    kernels::zero(Tensor{});
    const std::int64_t many = watched() ? 3001 : 300001;
    HostTensor a = HostTensor::normal(GetParam(), {many}, "a"), b = HostTensor::normal(GetParam(), {5}, "b");
    const Tensor several[] = {a, Tensor{}, b};
    kernels::zero(several);
    EXPECT_EQ(a.values(), Values(static_cast<std::size_t>(many), 0.0));
    EXPECT_EQ(b.values(), Values(5, 0.0));
    kernels::fill(Tensor{}, 1);
}

TEST(Zero, OfManyTensorsLeavesTheirNeighboursAlone) {
    // Every second row: more than a back end takes in one launch.
    const std::int64_t rows = watched() ? 200 : 2000, width = 5;
    HostTensor x = HostTensor::normal(DType::bf16, {rows, width}, "x");
    Values expected = x.values();
    std::vector<Tensor> tensors;
    for (std::int64_t i = 0; i < rows; i += 2) {
        tensors.push_back(static_cast<Tensor>(x).rows(i, 1));
        std::fill_n(expected.begin() + i * width, width, 0.0);
    }
    kernels::zero(tensors);
    EXPECT_EQ(x.values(), expected);
}

}  // namespace elementwise_test
}  // namespace switchyard::test
