// Dot products of rows and columns against loops in double: every pair of types, sizes around the lengths of
// strips, chunks and blocks, stored words of frozen weights, any number of threads.
#include "kernels/dots.hpp"
#include "reference/dots.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

using TypePair = std::tuple<DType, DType>;
class Dots : public ::testing::TestWithParam<TypePair> {};
INSTANTIATE_TEST_SUITE_P(Types, Dots,
                         ::testing::Combine(::testing::ValuesIn(compute_types),
                                            ::testing::ValuesIn(compute_types)));

const std::vector<Shape> shapes = watched()
                                      ? std::vector<Shape>{{1, 1}, {3, 33}, {20, 2}}
                                      : std::vector<Shape>{{1, 1}, {1, 300}, {7, 65}, {64, 32}, {258, 2}};

/// `start` + scale * dots, in f64 and rounded once to the type of the result: k = 1.
void expect_added(const HostTensor& out, const Values& start, double scale, const Values& dots,
                  std::int64_t terms) {
    Values expected = start;
    for (std::size_t i = 0; i < dots.size(); ++i) expected[i] += scale * dots[i];
    double largest = 1;
    for (double x : expected) largest = std::max(largest, std::fabs(x));
    for (std::size_t i = 0; i < dots.size(); ++i)
        EXPECT_NEAR(out.at(static_cast<std::int64_t>(i)), expected[i],
                    largest * (std::sqrt(static_cast<double>(terms)) * 0x1p-52 +
                               (out.dtype() == DType::f64 ? 0 : 0x1p-24)))
            << i;
}

TEST_P(Dots, EqualTheLoopInDouble) {
    const auto [a_type, b_type] = GetParam();
    if (watched() && a_type != b_type) GTEST_SKIP() << "the same kernels with equal types";
    for (const Shape& shape : shapes)
        for (DType out_type : {DType::f32, DType::f64}) {
            const std::int64_t rows = shape[0], width = shape[1];
            const HostTensor a = HostTensor::normal(a_type, shape, "a"),
                             b = HostTensor::normal(b_type, shape, "b");
            HostTensor of_columns = HostTensor::normal(out_type, {width}, "start"),
                       of_rows = HostTensor::normal(out_type, {rows}, "start");
            const Values columns_before = of_columns.values(), rows_before = of_rows.values();
            SCOPED_TRACE(shape.text());
            kernels::add_column_dots(a, b, -0.75, of_columns);
            expect_added(of_columns, columns_before, -0.75,
                         reference::column_dots(a.values(), b.values(), rows, width), rows);
            const Values dots_added = of_columns.values();
            kernels::add_column_sums(a, 1.5, of_columns);
            expect_added(of_columns, dots_added, 1.5, reference::column_sums(a.values(), rows, width), rows);
            kernels::add_row_dots(a, b, 2.5, of_rows);
            expect_added(of_rows, rows_before, 2.5, reference::row_dots(a.values(), b.values(), rows, width),
                         width);
        }
}

TEST(DotsOfLongColumns, AreSumsOfManyRows) {
    const Shape shape = watched() ? Shape{600, 1} : Shape{9000, 2};
    const HostTensor a = HostTensor::normal(DType::f32, shape, "a"),
                     b = HostTensor::normal(DType::f32, shape, "b"), out(DType::f64, {shape[1]});
    kernels::add_column_dots(a, b, 1, out);
    expect_added(out, Values(static_cast<std::size_t>(shape[1])), 1,
                 reference::column_dots(a.values(), b.values(), shape[0], shape[1]), shape[0]);
}

TEST(DotsOfWords, AreThoseOfTheStoredNumbers) {
    for (DType dtype : compute_types)
        for (const Shape& shape : shapes) {
            const DType wide = accumulate_type(dtype);
            const HostTensor value = HostTensor::normal(wide, shape, "w"), hi(dtype, shape),
                             lo = dtype == DType::bf16 ? HostTensor(DType::i16, shape) : HostTensor();
            kernels::store_frozen(value, {hi, lo});
            const HostTensor norms(wide, {shape[0]}, Values(static_cast<std::size_t>(shape[0]), NAN));
            kernels::row_squared_norms({hi, lo}, norms);
            expect_added(norms, Values(static_cast<std::size_t>(shape[0])), 1,
                         reference::row_dots(value.values(), value.values(), shape[0], shape[1]), shape[1]);
        }
}

TEST(DotsOfThreads, HaveTheSameBits) {
    if (watched()) GTEST_SKIP() << "no host threads are at work in kernels of a device";
    const Shape shape{300, 80};
    const HostTensor a = HostTensor::normal(DType::f32, shape, "a"),
                     b = HostTensor::normal(DType::f32, shape, "b");
    const auto all = [&] {
        const HostTensor columns(DType::f64, {shape[1]}), rows(DType::f64, {shape[0]}),
            squares(DType::f32, {shape[0]});
        kernels::add_column_dots(a, b, 1, columns);
        kernels::add_column_sums(a, 1, columns);
        kernels::add_row_dots(a, b, 1, rows);
        kernels::row_squared_norms({a, {}}, squares);
        Values values = columns.values();
        for (const HostTensor* more : {&rows, &squares})
            for (double x : more->values()) values.push_back(x);
        return values;
    };
    Values alone;
    {
        const Threads scope(1);
        alone = all();
    }
    for (int count : {2, 3, 8}) {
        const Threads scope(count);
        EXPECT_EQ(all(), alone);
    }
}

TEST(DotsOfNothing, AddNothingAndOtherSizesAreRefused) {
    const HostTensor none(DType::f32, {0, 4}), out(DType::f32, {4}, {1, 2, 3, 4});
    kernels::add_column_dots(none, none, 1, out);
    EXPECT_EQ(out.values(), (Values{1, 2, 3, 4}));
    const HostTensor x(DType::f32, {2, 4}), other(DType::f32, {2, 3}), narrow(DType::bf16, {4});
    EXPECT_THROW(kernels::add_column_dots(x, other, 1, out), InternalError);
    EXPECT_THROW(kernels::add_column_sums(other, 1, out), InternalError);
    EXPECT_THROW(kernels::add_row_dots(x, x, 1, out), InternalError);
    EXPECT_THROW(kernels::add_column_dots(x, x, 1, narrow), InternalError);
    EXPECT_THROW(kernels::row_squared_norms({x, {}}, out), InternalError);
}

}  // namespace
}  // namespace switchyard::test
