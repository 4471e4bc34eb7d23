// Rows of many matrices in one call: copies, differences, zeros, sums of parts and sums of squares against
// loops in double, for all pairs of types, ranges, lists, rectangles, and any number of threads.
#include "kernels/rows.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace rows_test {

using kernels::RowPart;
using kernels::Rows;

using TypePair = std::tuple<DType, DType>;
class RowPairs : public ::testing::TestWithParam<TypePair> {};
INSTANTIATE_TEST_SUITE_P(RowTypes, RowPairs,
                         ::testing::Combine(::testing::ValuesIn(compute_types),
                                            ::testing::ValuesIn(compute_types)));

double rounded(double x, DType dtype) {
    const HostTensor one(dtype, {1}, {x});
    return one.at(0);
}

const std::int64_t num_rows = 11, cols = watched() ? 35 : 5003;
const std::vector<std::int32_t> list{7, 0, 10};

TEST_P(RowPairs, CopiesMoveRectanglesOfManyMatrices) {
    const auto [from_type, to_type] = GetParam();
    const HostTensor rows = HostTensor::integers({3}, list);
    for (auto [column, width] :
         {std::pair<std::int64_t, std::int64_t>{0, cols}, {3, cols - 3}, {cols - 1, 1}, {4, 0}}) {
        const HostTensor whole = HostTensor::normal(from_type, {num_rows, cols}, "whole"),
                         packed = HostTensor::normal(from_type, {3, cols}, "packed");
        HostTensor first(to_type, {3, width}),
            second = HostTensor::normal(to_type, {num_rows, cols}, "target"), third(to_type, {3, cols});
        Values expected = second.values();
        kernels::RowBatch batch;
        batch.copy({whole, Rows::listed(rows), column, width}, kernels::whole_rows(first));  // packs rows
        batch.copy(
            {packed, Rows::range(0, 3), 1, width == cols ? cols - 1 : width},  // unpacks rows
            {second, Rows::listed(rows), width == cols ? 1 : column, width == cols ? cols - 1 : width});
        batch.copy(kernels::whole_rows(packed), kernels::whole_rows(third));  // one piece of memory
        batch.run();
        EXPECT_TRUE(batch.empty());
        const std::int64_t spread = width == cols ? cols - 1 : width, there = width == cols ? 1 : column;
        for (std::int64_t i = 0; i < 3; ++i) {
            for (std::int64_t j = 0; j < width; ++j)
                ASSERT_EQ(first.at(i * width + j), rounded(whole.at(list[i] * cols + column + j), to_type));
            for (std::int64_t j = 0; j < spread; ++j)
                expected[list[i] * cols + there + j] = rounded(packed.at(i * cols + 1 + j), to_type);
            for (std::int64_t j = 0; j < cols; ++j)
                ASSERT_EQ(third.at(i * cols + j), rounded(packed.at(i * cols + j), to_type));
        }
        EXPECT_EQ(second.values(), expected);
    }
}

TEST_P(RowPairs, DifferencesAreRoundedOnce) {
    const auto [from_type, to_type] = GetParam();
    const HostTensor rows = HostTensor::integers({3}, list);
    const HostTensor x = HostTensor::normal(from_type, {num_rows, cols}, "x"),
                     y = HostTensor::normal(from_type, {3, cols}, "y");
    HostTensor z(to_type, {3, cols});
    kernels::RowBatch batch;
    batch.subtract(kernels::whole_rows(x, Rows::listed(rows)), kernels::whole_rows(y),
                   kernels::whole_rows(z));
    batch.run();
    for (std::int64_t i = 0; i < 3; ++i)
        for (std::int64_t j = 0; j < cols; ++j) {
            const double exact = x.at(list[i] * cols + j) - y.at(i * cols + j);
            const bool in_f64 = from_type == DType::f64 || to_type == DType::f64;
            ASSERT_EQ(z.at(i * cols + j), rounded(in_f64 ? exact : static_cast<float>(exact), to_type));
        }
}

TEST(RowBatch, ZeroesRowsAndCopiesIntegers) {
    HostTensor x = HostTensor::normal(DType::f32, {num_rows, 5}, "x");
    HostTensor counters = HostTensor::integers({4}, {1, 2, 3, 4});
    const HostTensor some = HostTensor::integers({2}, {3, 1}), news = HostTensor::integers({2}, {9, 8});
    Values expected = x.values();
    std::fill(expected.begin() + 15, expected.begin() + 20, 0.0);
    std::fill(expected.begin() + 5, expected.begin() + 10, 0.0);
    kernels::RowBatch batch;
    batch.zero(kernels::whole_rows(x, Rows::listed(some)));
    batch.copy(kernels::whole_rows(news), kernels::whole_rows(counters, Rows::listed(some)));
    batch.run();
    EXPECT_EQ(x.values(), expected);
    EXPECT_EQ(counters.values(), (Values{1, 8, 3, 9}));
    batch.run();  // an empty batch does nothing
    EXPECT_EQ(counters.values(), (Values{1, 8, 3, 9}));
}

TEST(RowBatch, RefusesRowsAndColumnsOutside) {
    HostTensor whole(DType::f32, {2, 3}), packed(DType::f32, {1, 3}), counters(DType::i32, {1, 3});
    const HostTensor inside = HostTensor::integers({1}, {1});
    const auto copy = [](const RowPart& from, const RowPart& to) { kernels::copy_rows(from, to); };
    const RowPart one = kernels::whole_rows(packed);
    EXPECT_NO_THROW(copy({whole, Rows::listed(inside), 0, 3}, one));
    EXPECT_THROW(copy({whole, Rows::range(2, 1), 0, 3}, one), InternalError);
    EXPECT_THROW(copy(one, {whole, Rows::listed(inside), 1, 3}), InternalError);
    EXPECT_THROW(copy({whole, Rows::range(0, 2), 0, 3}, one), InternalError);
    EXPECT_THROW(copy(kernels::whole_rows(counters), one), InternalError);
    EXPECT_NO_THROW(
        copy({whole, Rows::range(0, 0), 0, 3}, kernels::whole_rows(HostTensor(DType::f32, {0, 3}))));
}

/// More items than a back end takes in one launch.
TEST(ManyItems, AreEachTheirOwn) {
    const std::int64_t items = watched() ? 40 : 400, width = 3;
    const HostTensor x = HostTensor::normal(DType::f32, {items, width}, "x"),
                     parts = HostTensor::normal(DType::f32, {2, items * width}, "parts");
    HostTensor turned(DType::f64, {items, width}), sums(DType::f64, {items}), added = x.clone();
    kernels::RowBatch batch;
    std::vector<RowPart> rows;
    std::vector<kernels::RowSum> targets;
    for (std::int64_t i = 0; i < items; ++i) {
        rows.push_back(kernels::whole_rows(x, Rows::range(i, 1)));
        batch.copy(rows.back(), kernels::whole_rows(turned, Rows::range(items - 1 - i, 1)));
        targets.push_back({kernels::whole_rows(added, Rows::range(i, 1)), (items - 1 - i) * width});
    }
    batch.run();
    kernels::squared_norms(rows, sums);
    kernels::sum_parts(parts, 0, targets);
    for (std::int64_t i = 0; i < items; ++i) {
        double squares = 0;
        for (std::int64_t j = 0; j < width; ++j) {
            const double value = x.at(i * width + j);
            squares += value * value;
            ASSERT_EQ(turned.at((items - 1 - i) * width + j), value) << i;
            ASSERT_EQ(added.at(i * width + j),
                      static_cast<float>(value + parts.at((2 * items - 1 - i) * width + j)))
                << i;
        }
        ASSERT_NEAR(sums.at(i), squares, 4 * 0x1p-52 * squares) << i;
    }
}

/// Back ends whose lists the host cannot read find a wrong entry in the kernel, which then stops the process.
TEST(RowBatchDeathTest, EntriesOfListsOutsideEndTheRun) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    for (std::int32_t entry : {2, -1}) {
        const HostTensor rows = HostTensor::integers({1}, {entry});
        HostTensor whole(DType::f32, {2, 3}), packed(DType::f32, {1, 3});
        const auto run = [&](const RowPart& from, const RowPart& to, const HostTensor& written) {
            try {
                kernels::copy_rows(from, to);
                written.at(0);  // waits for the kernel
            } catch (const std::exception&) {
                std::exit(3);
            }
            std::exit(0);
        };
        const RowPart one = kernels::whole_rows(packed);
        EXPECT_EXIT(run({whole, Rows::listed(rows), 0, 3}, one, packed), ::testing::ExitedWithCode(3), "");
        EXPECT_EXIT(run(one, {whole, Rows::listed(rows), 0, 3}, whole), ::testing::ExitedWithCode(3), "");
    }
}

TEST_P(RowPairs, SumsOfPartsRunInOrder) {
    const auto [from, to] = GetParam();
    const std::int64_t rows = 7, gap = 3;
    const std::vector<std::int32_t> some{6, 0, 3};
    const HostTensor some_rows = HostTensor::integers({3}, some);
    for (auto [column, width] :
         {std::pair<std::int64_t, std::int64_t>{0, cols}, {3, cols - 4}, {cols - 1, 1}, {4, 0}})
        for (std::int64_t num_parts : {1, 2, watched() ? 2 : 5})
            for (std::int64_t own = 0; own < num_parts; ++own) {
                // A list of rows from element 5 on, then a vector of 40.
                const std::int64_t vector_at = 5 + 3 * width, n = vector_at + 40 + gap;
                const HostTensor parts = HostTensor::normal(from, {num_parts, n}, "parts", 3);
                HostTensor target = HostTensor::normal(to, {rows, cols}, "target", 3),
                           vector = HostTensor::normal(to, {40}, "vector", 3);
                const auto summed = [&](double element, std::int64_t at) {
                    double sum = 0;
                    float in_f32 = 0;
                    for (std::int64_t p = 0; p < num_parts; ++p) {
                        const double x = p == own ? rounded(element, from) : parts.at(p * n + at);
                        sum += x;
                        in_f32 += static_cast<float>(x);
                    }
                    return to == DType::f64 ? sum : rounded(in_f32, to);
                };
                Values expected = target.values(), expected_vector = vector.values();
                for (std::int64_t i = 0; i < 3 * width; ++i) {
                    double& element = expected[some[i / width] * cols + column + i % width];
                    element = summed(element, 5 + i);
                }
                for (std::int64_t i = 0; i < 40; ++i)
                    expected_vector[i] = summed(expected_vector[i], vector_at + i);
                const kernels::RowSum sums[] = {{{target, Rows::listed(some_rows), column, width}, 5},
                                                {kernels::whole_rows(vector), vector_at}};
                kernels::sum_parts(parts, own, sums);
                ASSERT_EQ(target.values(), expected) << num_parts << " parts, own " << own;
                ASSERT_EQ(vector.values(), expected_vector) << num_parts << " parts, own " << own;
            }
}

TEST(SumOfParts, RefusesWhatDoesNotFit) {
    HostTensor parts(DType::f32, {2, 6}), to(DType::f32, {2, 3});
    const auto sum = [&](std::int64_t offset, std::int64_t own, std::int64_t column) {
        const kernels::RowSum one{{to, Rows::range(1, 1), column, 3}, offset};
        kernels::sum_parts(parts, own, {&one, 1});
    };
    EXPECT_NO_THROW(sum(3, 1, 0));
    EXPECT_THROW(sum(4, 1, 0), InternalError);
    EXPECT_THROW(sum(0, 2, 0), InternalError);
    EXPECT_THROW(sum(0, 1, 1), InternalError);
}

class RowTypes : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(RowTypes, RowTypes, ::testing::ValuesIn(compute_types));

TEST_P(RowTypes, SumsOfSquaresCountTheirRectanglesAlone) {
    const std::int64_t wide = watched() ? 2001 : 9001;
    const HostTensor x = HostTensor::normal(GetParam(), {5, wide}, "x"),
                     rows = HostTensor::integers({2}, {4, 1});
    const std::vector<RowPart> parts{{x, Rows::listed(rows), 0, wide},
                                     {x, Rows::listed(rows), 17, wide - 1001},
                                     {x, Rows::range(2, 3), wide - 1, 1},
                                     {x, Rows::listed(rows), 0, 0},
                                     {x, Rows::range(0, 0), 0, wide}};
    HostTensor sums(DType::f64, {5});
    kernels::squared_norms(parts, sums);
    for (std::size_t k = 0; k < parts.size(); ++k) {
        double squares = 0;
        for (std::int64_t i = 0; i < parts[k].rows.count; ++i)
            for (std::int64_t j = parts[k].column; j < parts[k].column + parts[k].width; ++j) {
                const double value = x.at((k == 2 ? 2 + i : i == 0 ? 4 : 1) * wide + j);
                squares += value * value;
            }
        EXPECT_NEAR(sums.at(k), squares, 100 * 0x1p-52 * squares) << k;
    }
}

TEST_P(RowTypes, SumsOfSquaresSayWhatIsNotFinite) {
    for (double bad : {std::numeric_limits<double>::quiet_NaN(), HUGE_VAL}) {
        HostTensor x = HostTensor::normal(GetParam(), {3, 33}, "x");
        x.set(40, bad);
        HostTensor sums(DType::f64, {3});
        const RowPart parts[] = {kernels::whole_rows(x, Rows::range(0, 1)),
                                 kernels::whole_rows(x, Rows::range(1, 1)),
                                 kernels::whole_rows(x, Rows::range(2, 1))};
        kernels::squared_norms(parts, sums);
        EXPECT_TRUE(std::isfinite(sums.at(0)) && !std::isfinite(sums.at(1)) && std::isfinite(sums.at(2)));
    }
}

TEST_P(RowTypes, BitsDoNotDependOnTheNumberOfThreads) {
    const std::int64_t rows = watched() ? 3 : 137, width = watched() ? 51 : 517,
                       long_row = watched() ? 301 : 9001;
    const HostTensor x = HostTensor::normal(GetParam(), {rows, width}, "x"),
                     y = HostTensor::normal(GetParam(), {long_row}, "y"),
                     parts = HostTensor::normal(GetParam(), {2, rows * width + long_row}, "parts");
    const auto run = [&] {
        HostTensor sums(DType::f64, {2}), a = x.clone(), b = y.clone(),
                                          packed(DType::f32, {rows, width - 17});
        const RowPart both[] = {kernels::whole_rows(x), kernels::whole_rows(y)};
        kernels::squared_norms(both, sums);
        const kernels::RowSum targets[] = {{kernels::whole_rows(a), 0},
                                           {kernels::whole_rows(b), rows * width}};
        kernels::sum_parts(parts, 1, targets);
        kernels::copy_rows({a, Rows::range(0, rows), 17, width - 17}, kernels::whole_rows(packed));
        std::vector<HostTensor> all;
        for (HostTensor* t : {&sums, &a, &b, &packed}) all.push_back(std::move(*t));
        return all;
    };
    std::vector<HostTensor> one;
    {
        const Threads scope(1);
        one = run();
    }
    for (int threads : {2, 3, 8}) {
        const Threads scope(threads);
        const std::vector<HostTensor> several = run();
        for (std::size_t i = 0; i < one.size(); ++i)
            EXPECT_TRUE(same_bits(several[i], one[i])) << "result " << i << ", " << threads << " threads";
    }
}

}  // namespace rows_test
}  // namespace switchyard::test
