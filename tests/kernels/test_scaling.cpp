// Columns times factors, quotients and roots against loops in double: rectangles inside matrices whose other
// elements stay as they are, in place, every pair of types.
#include "kernels/scaling.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

using TypePair = std::tuple<DType, DType>;
class Scaling : public ::testing::TestWithParam<TypePair> {};
INSTANTIATE_TEST_SUITE_P(Types, Scaling,
                         ::testing::Combine(::testing::ValuesIn(compute_types),
                                            ::testing::ValuesIn(compute_types)));

using kernels::Rows;

TEST_P(Scaling, OfColumnsEqualsTheLoop) {
    const auto [from_type, to_type] = GetParam();
    const std::int64_t rows = 5, width = watched() ? 40 : 700;
    for (DType factor_type : {DType::f32, DType::f64})
        for (bool accumulate : {false, true}) {
            const HostTensor from = HostTensor::normal(from_type, {rows + 2, width + 3}, "from"),
                             factors = HostTensor::normal(factor_type, {width}, "factors");
            const HostTensor to = HostTensor::normal(to_type, {rows + 1, width + 9}, "to");
            const Values before = to.values();
            kernels::scale_columns({.from = {from, Rows::range(2, rows), 1, width},
                                    .factors = factors,
                                    .to = {to, Rows::range(0, rows), 7, width},
                                    .scale = -1.5,
                                    .accumulate = accumulate});
            for (std::int64_t i = 0; i < to.size(); ++i) {
                const std::int64_t row = i / (width + 9), column = i % (width + 9) - 7;
                const double old = before[static_cast<std::size_t>(i)];
                if (row >= rows || column < 0 || column >= width) {
                    ASSERT_EQ(to.at(i), old) << "outside the rectangle, " << i;
                    continue;
                }
                const double x = from.at((row + 2) * (width + 3) + column + 1),
                             expected = (accumulate ? old : 0) - 1.5 * factors.at(column) * x;
                const double size = std::fabs(expected) + std::fabs(old);
                ASSERT_NEAR(to.at(i), expected, eps_of(to_type) * size) << i;
            }
        }
}

TEST(ScalingInPlace, ReadsBeforeItWrites) {
    const HostTensor x = HostTensor::normal(DType::f32, {3, 50}, "x"),
                     factors = HostTensor::normal(DType::f32, {50}, "factors");
    const Values before = x.values();
    const kernels::RowPart all = kernels::whole_rows(x);
    kernels::scale_columns({.from = all, .factors = factors, .to = all});
    for (std::int64_t i = 0; i < x.size(); ++i)
        EXPECT_EQ(x.at(i), static_cast<float>(before[static_cast<std::size_t>(i)] * factors.at(i % 50)));
}

TEST(ScalingOfRows, EqualsTheLoop) {
    for (DType dtype : compute_types)
        for (DType factor_type : {DType::f32, DType::f64}) {
            const HostTensor x = HostTensor::normal(dtype, {5, 70}, "x"),
                             factors = HostTensor::normal(factor_type, {5}, "factors");
            const Values before = x.values();
            kernels::scale_rows(x, factors);
            for (std::int64_t i = 0; i < x.size(); ++i) {
                const double expected = before[static_cast<std::size_t>(i)] * factors.at(i / 70);
                EXPECT_NEAR(x.at(i), expected, eps_of(dtype) * std::fabs(expected)) << i;
            }
        }
}

TEST(Vectors, AreDividedAndTheirRootsTaken) {
    for (DType dtype : {DType::f32, DType::f64}) {
        const HostTensor a(dtype, {5}, {3, 0, -8, 1, 2}), b(dtype, {5}, {2, 0, 4, 0, -0.0}), out(dtype, {5});
        kernels::divide(a, b, out);
        EXPECT_EQ(out.values(), (Values{1.5, 0, -2, 0, 0}));
        kernels::divide(a, b, a);
        EXPECT_EQ(a.values(), out.values());
        const HostTensor x(dtype, {4}, {9, 0, -1, 2});
        kernels::square_root(x);
        const double root = dtype == DType::f64 ? std::sqrt(2.0) : double{std::sqrt(2.0f)};
        EXPECT_EQ(x.values(), (Values{3, 0, 0, root}));
    }
    const HostTensor two(DType::f32, {2}), three(DType::f32, {3}), narrow(DType::bf16, {2});
    EXPECT_THROW(kernels::divide(two, three, two), InternalError);
    EXPECT_THROW(kernels::divide(narrow, two, two), InternalError);
    EXPECT_THROW(kernels::square_root(narrow), InternalError);
}

TEST(DivisionByANorm, HasALeastNorm) {
    const std::int64_t width = watched() ? 41 : 701;
    for (DType dtype : compute_types)
        for (const auto& [square, least, divisor] :
             {std::tuple{6.25, 1e-7, 2.5}, {6.25, 3.0, 3.0}, {0.0, 0.125, 0.125}}) {
            const HostTensor x = HostTensor::normal(dtype, {3, width}, "x"), norm(DType::f64, {1}, {square});
            const Values before = x.values();
            const Tensor part = Tensor(x).rows(1, 2);  // begins at any address
            kernels::divide_by_norm(part, norm, least);
            for (std::int64_t i = 0; i < x.size(); ++i) {
                const double expected = before[static_cast<std::size_t>(i)] / (i < width ? 1 : divisor);
                ASSERT_NEAR(x.at(i), expected, 2 * eps_of(dtype) * std::fabs(expected)) << i;
            }
        }
    const HostTensor x(DType::f32, {4}), two(DType::f64, {2});
    EXPECT_THROW(kernels::divide_by_norm(x, two, 1), InternalError);
}

}  // namespace
}  // namespace switchyard::test
