// Frozen weights: the split of f32 into two 16-bit words for every class of bit pattern, and low-rank
// operations on stored words against naive products in double.
#include <cstring>

#include "kernels/frozen_weight.hpp"
#include "reference/matmul.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace frozen_weight_test {

using kernels::FrozenWeight;
using kernels::LowRankFactors;

/// The nearest bf16 with ties away from zero, by distance in f64. Beyond the largest number the exponents go
/// on.
bf16 nearest_away(std::uint32_t bits) {
    const auto magnitude = [](std::uint32_t b) {
        b &= 0x7FFFFFFFu;
        return b == 0x7F800000u ? 0x1p128 : static_cast<double>(std::bit_cast<float>(b));
    };
    const std::uint32_t below = bits & 0xFFFF0000u, above = below + 0x10000u;
    const bool up = magnitude(bits) - magnitude(below) >= magnitude(above) - magnitude(bits);
    return {static_cast<std::uint16_t>((up && bits != below ? above : below) >> 16)};
}

bool is_nan(std::uint32_t bits) {
    return (bits & 0x7FFFFFFFu) > 0x7F800000u;
}

/// Stores and loads each pattern (a multiple of 16 patterns): hi must be the rounded value, and the pattern
/// must come back.
void expect_exact_split(const std::vector<std::uint32_t>& patterns) {
    const Shape shape{static_cast<std::int64_t>(patterns.size() / 16), 16};
    HostTensor value(DType::f32, shape);
    const HostTensor back(DType::f32, shape), hi(DType::bf16, shape), lo(DType::i16, shape);
    std::memcpy(value.bytes(), patterns.data(), value.num_bytes());
    kernels::store_frozen(value, {hi, lo});
    kernels::load_frozen({hi, lo}, back);
    ASSERT_TRUE(same_bits(back, value));
    for (std::size_t i = 0; i < patterns.size(); ++i) {
        if (is_nan(patterns[i])) continue;
        ASSERT_EQ(hi.bits(static_cast<std::int64_t>(i)), nearest_away(patterns[i]).bits)
            << fmt::format("{:08x}", patterns[i]);
    }
}

/// From one half word to the next.
const std::uint32_t step = watched() ? 0x101u : 1u;

TEST(FrozenSplit, ReassemblesEveryLowHalf) {
    // Zeros and smallest subnormals, subnormals, the largest subnormals (rounding up makes them normal), the
    // smallest normal number, carries into the exponent, ordinary values, the largest (which round to
    // infinity), infinities and NaN.
    for (std::uint32_t high :
         {0x0000u, 0x0001u, 0x0040u, 0x007Fu, 0x0080u, 0x0081u, 0x1234u, 0x3CA3u, 0x3F7Fu, 0x3F80u, 0x3F81u,
          0x7EFFu, 0x7F7Eu, 0x7F7Fu, 0x7F80u, 0x7FC0u, 0x7FFFu})
        for (std::uint32_t sign : {0u, 0x8000u}) {
            std::vector<std::uint32_t> patterns;
            for (std::uint32_t low = 0; low < 0x10000u; low += step)
                patterns.push_back((high | sign) << 16 | low);
            expect_exact_split(patterns);
        }
}

TEST(FrozenSplit, ReassemblesEveryHighHalf) {
    for (std::uint32_t low : {0x0000u, 0x0001u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu, 0x5A5Au, 0xA5A5u}) {
        std::vector<std::uint32_t> patterns;
        for (std::uint32_t high = 0; high < 0x10000u; high += step) patterns.push_back(high << 16 | low);
        expect_exact_split(patterns);
    }
    std::vector<std::uint32_t> random;
    for (std::uint64_t i = 0; i < (watched() ? 1u << 10 : 1u << 18); ++i) random.push_back(philox(5, i)[0]);
    expect_exact_split(random);
}

TEST(FrozenSplit, TheHighWordOfTiesIsAwayFromZero) {
    const Shape shape{1, 16};
    const HostTensor value(DType::f32, shape, Values(16, 1 + 0x1p-8)), hi(DType::bf16, shape),
        lo(DType::i16, shape);
    kernels::store_frozen(value, {hi, lo});
    EXPECT_EQ(hi.at(0), 1 + 0x1p-7);  // rounded to even it would be 1
    EXPECT_EQ(lo.at(0), -0x8000);
}

TEST(FrozenSplit, NotANumberReachesTheProducts) {
    const Shape shape{1, 16};
    // NaNs and infinities that arithmetic produces
    for (std::uint32_t bits : {0x7FC00000u, 0xFFC00000u, 0x7F800000u, 0xFF800001u}) {
        const HostTensor value(DType::f32, shape, Values(16, std::bit_cast<float>(bits))),
            hi(DType::bf16, shape), lo(DType::i16, shape);
        kernels::store_frozen(value, {hi, lo});
        EXPECT_FALSE(std::isfinite(hi.at(3)));
    }
}

TEST(FrozenSplit, OtherTypesAreStoredAsTheyAre) {
    for (DType dtype : {DType::f32, DType::f64}) {
        const HostTensor value = HostTensor::normal(dtype, {37, 11}, "w"), words(dtype, {37, 11}),
                         back(dtype, {37, 11});
        kernels::store_frozen(value, {words, {}});
        kernels::load_frozen({words, {}}, back);
        EXPECT_TRUE(same_bits(words, value));
        EXPECT_TRUE(same_bits(back, value));
    }
}

// ------------------------------------------------------------------------------------ low-rank operations

struct Case {
    DType dtype;
    std::int64_t m, n, low_rank;
};

/// A weight with the values `value` as stored words, and scratch of exactly the requested size.
struct Stored {
    HostTensor value, hi, lo, scratch;
    explicit Stored(DType dtype, Shape shape)
        : value(HostTensor::normal(accumulate_type(dtype), shape, "w")), hi(dtype, shape) {
        if (dtype == DType::bf16) lo = HostTensor(DType::i16, shape);
        const auto bytes = kernels::frozen_scratch_bytes(shape[0], shape[1], dtype);
        if (bytes > 0) scratch = HostTensor(DType::f32, {static_cast<std::int64_t>(bytes / sizeof(float))});
        kernels::store_frozen(value, words());
    }
    FrozenWeight words() const { return {hi, lo}; }
    HostTensor loaded() const {
        HostTensor result = value.clone();
        kernels::load_frozen(words(), result);
        return result;
    }
};

struct Factors {
    HostTensor a, b_transposed;
    Factors(DType dtype, std::int64_t m, std::int64_t n, std::int64_t low_rank)
        : a(HostTensor::normal(dtype, {low_rank, n}, "a")),
          b_transposed(HostTensor::normal(dtype, {low_rank, m}, "b")) {}
    LowRankFactors scaled(double scale) const { return {a, b_transposed, scale}; }
    /// value + scale * B A.
    Values added_to(const HostTensor& value, double scale) const {
        const Values a_values = a.values(), b_values = b_transposed.values(), w = value.values();
        const std::int64_t m = static_cast<Tensor>(b_transposed).dim(1), n = static_cast<Tensor>(a).dim(1);
        return reference::product({m, n, static_cast<Tensor>(a).dim(0)}, scale, {b_values, 1, m},
                                  {a_values, n, 1}, &w, n);
    }
};

class FrozenLowRank : public ::testing::TestWithParam<Case> {};

TEST_P(FrozenLowRank, ProductsAreAddedInFullPrecision) {
    const auto [dtype, m, n, low_rank] = GetParam();
    for (double scale : {1.0, -1.0 / 3}) {
        const Stored w(dtype, {m, n});
        const Factors factors(accumulate_type(dtype), m, n, low_rank);
        const Values expected = factors.added_to(w.value, scale);
        kernels::add_low_rank(w.words(), factors.scaled(scale), w.scratch);
        EXPECT_TRUE(close(w.loaded(), expected, 2, low_rank + 1));
        if (low_rank == 0) {
            EXPECT_TRUE(same_bits(w.loaded(), w.value));
        }
    }
}

TEST_P(FrozenLowRank, ABaseFactorScalesTheStoredWeight) {
    const auto [dtype, m, n, low_rank] = GetParam();
    const double base = 0.75;
    const Stored w(dtype, {m, n});
    const Factors factors(accumulate_type(dtype), m, n, low_rank);
    HostTensor scaled = w.value.clone();
    for (std::int64_t i = 0; i < scaled.size(); ++i) scaled.set(i, base * w.value.at(i));
    const Values expected = factors.added_to(scaled, -1.0 / 3);
    kernels::add_low_rank(w.words(), factors.scaled(-1.0 / 3), w.scratch, base);
    EXPECT_TRUE(close(w.loaded(), expected, 2, low_rank + 2));
}

TEST_P(FrozenLowRank, MergingRoundsTheSumOnce) {
    const auto [dtype, m, n, low_rank] = GetParam();
    const Stored w(dtype, {m, n});
    const Factors factors(dtype, m, n, low_rank);
    HostTensor merged(dtype, {m, n});
    for (std::int64_t i = 0; i < merged.size(); ++i) merged.set(i, NAN);
    kernels::merge(w.words(), {factors.scaled(-1.0 / 3)}, merged, w.scratch);
    const Values expected = factors.added_to(w.value, -1.0 / 3);
    EXPECT_TRUE(close(merged, expected, 2, low_rank + 1));
    EXPECT_TRUE(same_bits(w.loaded(), w.value));
    if (dtype != DType::bf16) return;
    // The error of the sum in f32 plus half a unit in the last place of bf16.
    double largest = 0;
    for (double value : expected) largest = std::max(largest, std::fabs(value));
    const double sums = 2 * std::sqrt(static_cast<double>(low_rank + 1)) * eps_of(DType::f32) * largest;
    for (std::int64_t i = 0; i < merged.size(); ++i) {
        const double value = expected[static_cast<std::size_t>(i)];
        ASSERT_NEAR(merged.at(i), value, std::fabs(value) * 0x1p-8 + sums) << "element " << i;
    }
}

TEST_P(FrozenLowRank, BitsDoNotDependOnTheNumberOfThreads) {
    const auto [dtype, m, n, low_rank] = GetParam();
    const Factors factors(dtype, m, n, low_rank), differences(accumulate_type(dtype), m, n, low_rank);
    HostTensor merged_by_one, added_by_one;
    for (int threads : {1, 2, 3}) {
        const Threads scope(threads);
        const Stored w(dtype, {m, n});
        HostTensor merged(dtype, {m, n});
        kernels::merge(w.words(), {factors.scaled(0.3)}, merged, w.scratch);
        kernels::add_low_rank(w.words(), differences.scaled(0.3), w.scratch);
        if (threads == 1) {
            merged_by_one = std::move(merged), added_by_one = w.loaded();
        } else {
            EXPECT_TRUE(same_bits(merged, merged_by_one)) << threads << " threads";
            EXPECT_TRUE(same_bits(w.loaded(), added_by_one)) << threads << " threads";
        }
    }
}

/// Factors of rows [begin, begin + count) and columns [col, col + width) of the weight.
Factors sliced(const Factors& f, DType dtype, std::int64_t begin, std::int64_t count, std::int64_t col,
               std::int64_t width) {
    const std::int64_t slots = static_cast<Tensor>(f.a).dim(0), n = static_cast<Tensor>(f.a).dim(1),
                       m = static_cast<Tensor>(f.b_transposed).dim(1);
    Factors part(dtype, count, width, slots);
    for (std::int64_t slot = 0; slot < slots; ++slot) {
        for (std::int64_t j = 0; j < width; ++j) part.a.set(slot * width + j, f.a.at(slot * n + col + j));
        for (std::int64_t i = 0; i < count; ++i)
            part.b_transposed.set(slot * count + i, f.b_transposed.at(slot * m + begin + i));
    }
    return part;
}

/// Merges rows [begin, begin + count) alone into those rows of `merged`.
void merge_slice(const Stored& w, const Factors& factors, std::int64_t begin, std::int64_t count,
                 Tensor merged) {
    const DType dtype = w.hi.dtype();
    const Factors part = sliced(factors, dtype, begin, count, 0, merged.dim(1));
    kernels::merge(w.words().rows(begin, count), {part.scaled(0.3)}, merged.rows(begin, count), w.scratch);
}

TEST_P(FrozenLowRank, MergedSlicesAreSlicesOfTheMerge) {
    // Bit for bit if slices are whole panels (at most 128 rows, and for every n a divisor of that); otherwise
    // up to rounding, because oneDNN chooses kernels by the number of rows.
    const auto [dtype, m, n, low_rank] = GetParam();
    const Stored w(dtype, {m, n});
    const Factors factors(dtype, m, n, low_rank);
    const HostTensor whole(dtype, {m, n}), pieces(dtype, {m, n});
    kernels::merge(w.words(), {factors.scaled(0.3)}, whole, w.scratch);
    for (std::int64_t slices : {2, 3, 7}) {
        const std::int64_t step = (m + slices - 1) / slices;
        for (std::int64_t begin = 0; begin < m; begin += step)
            merge_slice(w, factors, begin, std::min(step, m - begin), pieces);
        EXPECT_TRUE(close(pieces, whole.values(), 1, low_rank + 1)) << slices << " slices";
    }
    for (std::int64_t begin = 0; begin < m; begin += 128)
        merge_slice(w, factors, begin, std::min<std::int64_t>(128, m - begin), pieces);
    EXPECT_TRUE(same_bits(pieces, whole));
}

std::vector<Case> cases() {
    std::vector<Case> cases;
    for (DType dtype : compute_types)
        for (auto [m, n, low_rank] : {std::array<std::int64_t, 3>{1, 1, 1},
                                      {5, 7, 3},
                                      {130, 33, 9},
                                      {watched() ? 140 : 300, 70, 16},
                                      {17, watched() ? 140 : 4100, 2},
                                      {64, 48, 200},
                                      {9, 5, 0},
                                      {0, 8, 2}})
            cases.push_back({dtype, m, n, low_rank});
    return cases;
}
std::string name(const ::testing::TestParamInfo<Case>& info) {
    return fmt::format("{}_{}x{}_r{}", name_of(info.param.dtype), info.param.m, info.param.n,
                       info.param.low_rank);
}
/// row_scale_i (base W + scale sum over slots of gate_slot b a), element by element in f64.
struct Described {
    HostTensor gate, row_scale;
    double base = -0.75, scale = 1.0 / 3;
    Described(DType wide, std::int64_t m, std::int64_t low_rank)
        : gate(HostTensor::normal(wide, {low_rank}, "gate")),
          row_scale(HostTensor::normal(wide, {m}, "rows")) {}
    kernels::EffectiveWeight of(const Factors& f) const { return {f.scaled(scale), base, gate, row_scale}; }
    Values value(const HostTensor& w, const Factors& f) const {
        const std::int64_t m = static_cast<Tensor>(w).dim(0), n = static_cast<Tensor>(w).dim(1),
                           slots = static_cast<Tensor>(f.a).dim(0);
        Values out(static_cast<std::size_t>(m * n));
        for (std::int64_t i = 0; i < m * n; ++i) {
            double sum = base * w.at(i);
            for (std::int64_t slot = 0; slot < slots; ++slot)
                sum += scale * gate.at(slot) * f.b_transposed.at(slot * m + i / n) * f.a.at(slot * n + i % n);
            out[static_cast<std::size_t>(i)] = row_scale.at(i / n) * sum;
        }
        return out;
    }
};

TEST_P(FrozenLowRank, EveryPartOfAnEffectiveWeightIsMerged) {
    const auto [dtype, m, n, low_rank] = GetParam();
    const Stored w(dtype, {m, n});
    const Factors factors(dtype, m, n, low_rank);
    const Described x(accumulate_type(dtype), m, low_rank);
    const Values expected = x.value(w.value, factors);
    const HostTensor merged(dtype, {m, n});
    kernels::merge(w.words(), x.of(factors), merged, w.scratch);
    // In bf16 the product gate times B is rounded before the matrix product.
    EXPECT_TRUE(close(merged, expected, 8, low_rank + 2));
    if (dtype == DType::bf16) return;
    // Rows from the middle on; the description is that of the whole weight.
    const std::int64_t half = m / 2;
    const HostTensor lower(dtype, {m, n});
    kernels::merge(w.words().rows(half, m - half), x.of(factors).from_row(half),
                   static_cast<Tensor>(lower).rows(half, m - half), w.scratch);
    kernels::merge(w.words().rows(0, half), x.of(factors), static_cast<Tensor>(lower).rows(0, half),
                   w.scratch);
    EXPECT_TRUE(close(lower, expected, 8, low_rank + 2));
    const HostTensor in_order = w.value.clone();
    kernels::form_in_order(in_order, x.of(factors));
    EXPECT_TRUE(close(in_order, expected, 8, low_rank + 2));
}

INSTANTIATE_TEST_SUITE_P(Types, FrozenLowRank, ::testing::ValuesIn(cases()), name);

// -------------------------------------------------------------------------- effective weights in a fixed
// order

class FrozenInOrder : public ::testing::TestWithParam<std::pair<DType, DType>> {};

/// The result that the header promises, element by element: fma over slots in f64, rounded once.
HostTensor subtracted(const HostTensor& value, const Factors& f, double scale) {
    const std::int64_t m = static_cast<Tensor>(value).dim(0), n = static_cast<Tensor>(value).dim(1),
                       slots = static_cast<Tensor>(f.a).dim(0);
    HostTensor out = value.clone();
    for (std::int64_t i = 0; i < m * n; ++i) {
        double sum = 0;
        for (std::int64_t slot = 0; slot < slots; ++slot)
            sum = std::fma(f.b_transposed.at(slot * m + i / n), f.a.at(slot * n + i % n), sum);
        out.set(i, std::fma(-scale, sum, value.at(i)));
    }
    return out;
}

TEST_P(FrozenInOrder, HasTheBitsOfTheFormulaWhateverTheSlice) {
    const auto [value_type, factor_type] = GetParam();
    const std::int64_t m = watched() ? 20 : 53, n = watched() ? 80 : 141, slots = 37;
    const double scale = 1.0 / 3;
    const HostTensor before = HostTensor::normal(value_type, {m, n}, "w");
    const Factors factors(factor_type, m, n, slots);
    const HostTensor whole = before.clone();
    kernels::form_in_order(whole, {factors.scaled(-scale)});
    EXPECT_TRUE(same_bits(whole, subtracted(before, factors, scale)));
    EXPECT_TRUE(close(whole, factors.added_to(before, -scale), 1, slots));

    for (auto [row_step, col_step] :
         {std::pair<std::int64_t, std::int64_t>{1, n}, {m, 1}, {16, 32}, {7, 31}, {20, 80}})
        for (std::int64_t row = 0; row < m; row += row_step)
            for (std::int64_t col = 0; col < n; col += col_step) {
                const std::int64_t rows = std::min(row_step, m - row), cols = std::min(col_step, n - col);
                HostTensor part(value_type, {rows, cols}), expected = part.clone();
                for (std::int64_t i = 0; i < rows * cols; ++i) {
                    const std::int64_t at = (row + i / cols) * n + col + i % cols;
                    part.set(i, before.at(at));
                    expected.set(i, whole.at(at));
                }
                const Factors slice = sliced(factors, factor_type, row, rows, col, cols);
                kernels::form_in_order(part, {slice.scaled(-scale)});
                ASSERT_TRUE(same_bits(part, expected)) << "rows from " << row << ", columns from " << col;
            }
}
INSTANTIATE_TEST_SUITE_P(Types, FrozenInOrder,
                         ::testing::Values(std::pair{DType::f32, DType::f32},
                                           std::pair{DType::f32, DType::bf16},
                                           std::pair{DType::f64, DType::f64}),
                         [](const auto& info) {
                             return fmt::format("{}_{}", name_of(info.param.first),
                                                name_of(info.param.second));
                         });

TEST(FrozenShapes, ScratchMustBeAsLargeAsTheBackEndSays) {
    const Stored w(DType::bf16, {6, 16});
    const std::size_t needed = kernels::frozen_scratch_bytes(6, 16, DType::bf16);
    if (needed == 0) GTEST_SKIP() << "this back end needs none";
    const Factors f(DType::bf16, 6, 16, 3), wide(DType::f32, 6, 16, 3);
    const HostTensor merged(DType::bf16, {6, 16});
    const auto one_less = static_cast<std::int64_t>(needed / sizeof(float)) - 1;
    const Tensor small = static_cast<Tensor>(w.scratch).rows(0, one_less);
    EXPECT_THROW(kernels::merge(w.words(), {f.scaled(1)}, merged, small), InternalError);
    EXPECT_THROW(kernels::add_low_rank(w.words(), wide.scaled(1), {}), InternalError);
}

TEST(FrozenShapes, AreChecked) {
    const Stored w(DType::bf16, {6, 16});
    const Factors f(DType::bf16, 6, 16, 3), wide(DType::f32, 6, 16, 3), turned(DType::bf16, 16, 6, 3);
    const HostTensor merged(DType::bf16, {6, 16}), f32(DType::f32, {6, 16}), i16(DType::i16, {5, 16});
    const auto refused = [](auto call) { EXPECT_THROW(call(), InternalError); };
    EXPECT_NO_THROW(kernels::merge(w.words(), {f.scaled(1)}, merged, w.scratch));
    refused([&] { kernels::merge(w.words(), {wide.scaled(1)}, merged, w.scratch); });
    refused([&] { kernels::merge(w.words(), {turned.scaled(1)}, merged, w.scratch); });
    refused([&] { kernels::merge(w.words(), {f.scaled(1)}, f32, w.scratch); });
    refused([&] { kernels::merge({w.hi, {}}, {f.scaled(1)}, merged, w.scratch); });
    refused([&] { kernels::merge({w.hi, i16}, {f.scaled(1)}, merged, w.scratch); });
    refused([&] { kernels::add_low_rank(w.words(), f.scaled(1), w.scratch); });
    refused([&] { kernels::store_frozen(merged, w.words()); });
    refused([&] { kernels::load_frozen(w.words(), merged); });
    refused([&] { kernels::load_frozen({f32, w.lo}, f32); });
    refused([&] { kernels::form_in_order(f32, {turned.scaled(1)}); });
    refused([&] { kernels::form_in_order(merged, {f.scaled(1)}); });
}

}  // namespace frozen_weight_test
}  // namespace switchyard::test
