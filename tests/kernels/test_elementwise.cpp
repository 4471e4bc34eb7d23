// Copies, casts, sums, norms, packing: against loops in double, for all types and pairs of types, sizes
// around the block and vector lengths, empty tensors, not-a-number and infinity, any number of threads.
#include <omp.h>

#include "kernels/elementwise.hpp"
#include "support/tensors.hpp"

namespace switchyard::test {
namespace {

const std::int64_t sizes[] = {0, 1, 7, 16, 33, 4095, 4097, 50001};

using TypePair = std::tuple<DType, DType>;
class Pairs : public ::testing::TestWithParam<TypePair> {};
INSTANTIATE_TEST_SUITE_P(Types, Pairs,
                         ::testing::Combine(::testing::ValuesIn(compute_types),
                                            ::testing::ValuesIn(compute_types)));

/// What a tensor of `dtype` keeps of `value`: one rounding to nearest even, by the library's rounding of
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
        const HostTensor x = HostTensor::normal(from, {rows, cols}, "x");
        HostTensor y(to, {cols, rows});
        kernels::transpose(x, y);
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < cols; ++j)
                ASSERT_EQ(y.at(j * rows + i), rounded(x.at(i * cols + j), to));
    }
}

TEST_P(Pairs, PackAndUnpackMoveOneRectangle) {
    const auto [whole_type, packed_type] = GetParam();
    const std::int64_t rows = 11, cols = 5003;
    const std::vector<std::int32_t> list{7, 0, 10};
    for (auto [column, width] :
         {std::pair<std::int64_t, std::int64_t>{0, cols}, {3, 5000}, {5002, 1}, {4, 0}}) {
        const kernels::Rectangle part{list.data(), 3, column, width};
        const HostTensor whole = HostTensor::normal(whole_type, {rows, cols}, "whole");
        HostTensor packed(packed_type, {3, width});
        kernels::pack(whole, part, packed);
        for (std::int64_t i = 0; i < 3; ++i)
            for (std::int64_t j = 0; j < width; ++j)
                ASSERT_EQ(packed.at(i * width + j),
                          rounded(whole.at(list[i] * cols + column + j), packed_type));

        HostTensor target = HostTensor::normal(whole_type, {rows, cols}, "target");
        Values expected = target.values();
        for (std::int64_t i = 0; i < 3; ++i)
            for (std::int64_t j = 0; j < width; ++j)
                expected[list[i] * cols + column + j] = rounded(packed.at(i * width + j), whole_type);
        kernels::unpack(packed, part, target);
        EXPECT_EQ(target.values(), expected);
    }
}

TEST(Pack, RefusesRowsAndColumnsOutside) {
    HostTensor whole(DType::f32, {2, 3}), packed(DType::f32, {1, 3});
    const std::int32_t outside = 2, inside = 1;
    EXPECT_THROW(kernels::pack(whole, {&outside, 1, 0, 3}, packed), InternalError);
    EXPECT_THROW(kernels::unpack(packed, {&inside, 1, 1, 3}, whole), InternalError);
    EXPECT_NO_THROW(kernels::pack(whole, {nullptr, 0, 0, 3}, HostTensor(DType::f32, {0, 3})));
}

TEST_P(Pairs, SumOfPartsRunsInOrder) {
    const auto [from, to] = GetParam();
    const std::int64_t rows = 7, cols = 5003, offset = 5, gap = 3;
    const std::vector<std::int32_t> list{6, 0, 3};
    for (auto [column, width] :
         {std::pair<std::int64_t, std::int64_t>{0, cols}, {3, 4999}, {5002, 1}, {4, 0}})
        for (std::int64_t num_parts : {1, 2, 5})
            for (std::int64_t own = 0; own < num_parts; ++own) {
                const std::int64_t n = offset + 3 * width + gap;
                const HostTensor parts = HostTensor::normal(from, {num_parts, n}, "parts", 3);
                HostTensor target = HostTensor::normal(to, {rows, cols}, "target", 3);
                Values expected = target.values();
                for (std::int64_t i = 0; i < 3 * width; ++i) {
                    double& element = expected[list[i / width] * cols + column + i % width];
                    double sum = 0;
                    float in_f32 = 0;
                    for (std::int64_t p = 0; p < num_parts; ++p) {
                        const double x = p == own ? rounded(element, from) : parts.at(p * n + offset + i);
                        sum += x;
                        in_f32 += static_cast<float>(x);
                    }
                    element = to == DType::f64 ? sum : rounded(in_f32, to);
                }
                kernels::sum_parts(parts, offset, own, {list.data(), 3, column, width}, target);
                ASSERT_EQ(target.values(), expected) << num_parts << " parts, own " << own;
            }
}

TEST(SumOfParts, RefusesWhatDoesNotFit) {
    HostTensor parts(DType::f32, {2, 6}), to(DType::f32, {2, 3});
    const std::int32_t row = 1;
    EXPECT_NO_THROW(kernels::sum_parts(parts, 3, 1, {&row, 1, 0, 3}, to));
    EXPECT_THROW(kernels::sum_parts(parts, 4, 1, {&row, 1, 0, 3}, to), InternalError);
    EXPECT_THROW(kernels::sum_parts(parts, 0, 2, {&row, 1, 0, 3}, to), InternalError);
    EXPECT_THROW(kernels::sum_parts(parts, 0, 1, {&row, 1, 1, 3}, to), InternalError);
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
    kernels::fill(Tensor{}, 1);
}

TEST_P(Types, NormsEqualTheLoopInDouble) {
    for (std::int64_t n : sizes) {
        HostTensor x = HostTensor::normal(GetParam(), {n}, "x");
        double squares = 0, largest = 0;
        for (double value : x.values())
            squares += value * value, largest = std::max(largest, std::fabs(value));
        // Sums in f64 whatever the type: k = 1.
        EXPECT_NEAR(kernels::squared_norm(x), squares, std::sqrt(n + 1.0) * 0x1p-52 * squares);
        EXPECT_EQ(kernels::max_abs(x), largest);
    }
}

TEST_P(Types, NormOfRowsCountsTheRectangleAlone) {
    const std::int64_t cols = 9001;
    const HostTensor x = HostTensor::normal(GetParam(), {5, cols}, "x");
    const std::vector<std::int32_t> list{4, 1};
    const HostTensor rows = HostTensor::integers({2}, list);
    for (auto [column, width] :
         {std::pair<std::int64_t, std::int64_t>{0, cols}, {17, 8000}, {9000, 1}, {0, 0}}) {
        double squares = 0;
        for (std::int32_t row : list)
            for (std::int64_t j = column; j < column + width; ++j)
                squares += x.at(row * cols + j) * x.at(row * cols + j);
        EXPECT_NEAR(kernels::squared_norm_rows(x, rows, column, width), squares, 100 * 0x1p-52 * squares);
    }
    EXPECT_EQ(kernels::squared_norm_rows(x, HostTensor(DType::i32, {0}), 0, cols), 0);
}

TEST_P(Types, NormsPropagateWhatIsNotFinite) {
    for (std::int64_t n : {1, 33, 20000})
        for (std::int64_t place : {std::int64_t{0}, n / 2, n - 1}) {
            HostTensor x = HostTensor::normal(GetParam(), {n}, "x");
            x.set(place, -INFINITY);
            EXPECT_EQ(kernels::squared_norm(x), INFINITY);
            EXPECT_EQ(kernels::max_abs(x), INFINITY);
            x.set(n - 1 - place, NAN);
            EXPECT_TRUE(std::isnan(kernels::squared_norm(x)));
            EXPECT_TRUE(std::isnan(kernels::max_abs(x)));
            EXPECT_TRUE(std::isnan(kernels::squared_norm_rows(static_cast<Tensor>(x).reshape({1, n}),
                                                              HostTensor::integers({1}, {0}), 0, n)));
        }
}

TEST_P(Types, NormsDoNotDependOnTheNumberOfThreads) {
    const HostTensor x = HostTensor::normal(GetParam(), {123457}, "x");
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const double alone = kernels::squared_norm(x);
    for (int count : {2, 3, 8}) {
        omp_set_num_threads(count);
        EXPECT_EQ(kernels::squared_norm(x), alone);
    }
    omp_set_num_threads(threads);
}

}  // namespace
}  // namespace switchyard::test
