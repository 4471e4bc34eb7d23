// Matrix products of tensors against a naive double product: types, transposes, alpha, accumulation, sizes.
#include "kernels/matmul.hpp"
#include "reference/matmul.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"

namespace switchyard::test {
namespace matmul_test {

using kernels::Matmul;
using kernels::Op;
using reference::ProductSizes;

struct Types {
    DType in, out;
};
const Types all_types[] = {{DType::f32, DType::f32},
                           {DType::bf16, DType::bf16},
                           {DType::bf16, DType::f32},
                           {DType::f64, DType::f64}};

/// The operands of one product, filled with normal numbers, including the initial values of c.
struct Operands {
    ProductSizes sizes;
    Op op_a, op_b;
    HostTensor a, b, c;

    Operands(Types types, ProductSizes s, Op turn_a, Op turn_b)
        : sizes(s),
          op_a(turn_a),
          op_b(turn_b),
          a(HostTensor::normal(types.in, turn_a == Op::transpose ? Shape{s.k, s.m} : Shape{s.m, s.k}, "a")),
          b(HostTensor::normal(types.in, turn_b == Op::transpose ? Shape{s.n, s.k} : Shape{s.k, s.n}, "b")),
          c(HostTensor::normal(types.out, {s.m, s.n}, "c")) {}

    Values expected(double alpha, bool accumulate) const {
        return expected_of(a.values(), b.values(), c.values(), alpha, accumulate);
    }
    Values expected_of(const Values& a_values, const Values& b_values, const Values& c_values, double alpha,
                       bool accumulate) const {
        const bool a_turned = op_a == Op::transpose, b_turned = op_b == Op::transpose;
        return reference::product(sizes, alpha, {a_values, a_turned ? 1 : sizes.k, a_turned ? sizes.m : 1},
                                  {b_values, b_turned ? 1 : sizes.n, b_turned ? sizes.k : 1},
                                  accumulate ? &c_values : nullptr, sizes.n);
    }
    HostTensor result(double alpha, bool accumulate) const {
        HostTensor out = c.clone();
        if (!accumulate)  // c must not be read then
            for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, NAN);
        kernels::matmul(
            {.a = a, .b = b, .c = out, .op_a = op_a, .op_b = op_b, .alpha = alpha, .accumulate = accumulate});
        return out;
    }
};

Values magnitudes(Values values) {
    for (double& value : values) value = std::fabs(value);
    return values;
}

/// Tensor cores cut off what does not fit into the f32 that they add to, 16 products at a time: an error that
/// grows with k, not with its root (measured on V100 and A100), and with what is added. A single result may
/// be far smaller than that.
::testing::AssertionResult agrees(const Operands& x, const Values& expected, double alpha, bool accumulate) {
    double k = 2;
    std::int64_t n = x.sizes.k;
    if (x.a.dtype() == DType::bf16 && x.c.dtype() == DType::f32) {
        n = std::max(n, n * n / 64);
        if (expected.size() == 1)
            k *= x.expected_of(magnitudes(x.a.values()), magnitudes(x.b.values()), magnitudes(x.c.values()),
                               std::fabs(alpha), accumulate)[0] /
                 std::fabs(expected[0]);
    }
    return close(x.result(alpha, accumulate), expected, k, n);
}

class MatmulSizes : public ::testing::TestWithParam<std::tuple<Types, ProductSizes>> {};

TEST_P(MatmulSizes, EqualsTheNaiveProduct) {
    const auto [types, sizes] = GetParam();
    for (Op op_a : {Op::none, Op::transpose})
        for (Op op_b : {Op::none, Op::transpose}) {
            const Operands x(types, sizes, op_a, op_b);
            for (double alpha : {1.0, -1.0 / 3})
                for (bool accumulate : {false, true})
                    EXPECT_TRUE(agrees(x, x.expected(alpha, accumulate), alpha, accumulate))
                        << (op_a == Op::transpose ? "a' " : "a ") << (op_b == Op::transpose ? "b'" : "b")
                        << " alpha " << alpha << (accumulate ? " added" : "");
        }
}

const ProductSizes all_sizes[] = {{1, 1, 1},     {5, 7, 3},   {17, 33, 65}, {64, 64, 64}, {1, 130, 70},
                                  {130, 1, 70},  {70, 50, 1}, {1, 1, 999},  {3, 257, 5},  {128, 96, 200},
                                  {2, 3, 40000}, {0, 4, 5},   {4, 0, 5},    {4, 5, 0},    {0, 0, 0}};
std::string name(const ::testing::TestParamInfo<std::tuple<Types, ProductSizes>>& info) {
    const auto [types, s] = info.param;
    return fmt::format("{}_{}_{}x{}x{}", name_of(types.in), name_of(types.out), s.m, s.n, s.k);
}
INSTANTIATE_TEST_SUITE_P(Types, MatmulSizes,
                         ::testing::Combine(::testing::ValuesIn(all_types), ::testing::ValuesIn(all_sizes)),
                         name);

TEST(Matmul, ThatLacksAFewTermsIsFound) {
    for (const Types& types : {all_types[0], all_types[2], all_types[3]})  // bf16 rounds too much
        for (const ProductSizes& sizes : {ProductSizes{1, 1, 999}, ProductSizes{2, 3, 40000}}) {
            const Operands x(types, sizes, Op::none, Op::transpose);
            Values fewer = x.a.values();
            for (std::int64_t i = 0; i < sizes.m; ++i) std::fill_n(fewer.begin() + i * sizes.k + 32, 16, 0.0);
            const Values lacking = x.expected_of(fewer, x.b.values(), x.c.values(), 1, false);
            EXPECT_FALSE(agrees(x, lacking, 1, false)) << name_of(types.in) << " of " << sizes.k;
        }
}

TEST(Matmul, RoundsToBf16Once) {
    // The error of f32 sums (k = 2) plus half a unit in the last place (2^-8 of the value). c has the size of
    // the sums, so a long k would show a second rounding if sums were kept in bf16.
    for (std::int64_t k : {7, 300, 5000}) {
        const Operands x({DType::bf16, DType::bf16}, {33, 65, k}, Op::none, Op::transpose);
        for (bool accumulate : {false, true}) {
            const Values expected = x.expected(0.7, accumulate);
            const HostTensor out = x.result(0.7, accumulate);
            const double sums = std::sqrt(static_cast<double>(k)) * eps_of(DType::f32) * 2 *
                                std::fabs(*std::max_element(expected.begin(), expected.end()));
            for (std::int64_t i = 0; i < out.size(); ++i) {
                const double value = expected[static_cast<std::size_t>(i)];
                ASSERT_NEAR(out.at(i), value, std::fabs(value) * 0x1p-8 + sums) << "element " << i;
            }
        }
    }
}

TEST(Matmul, AlphaIsNotNarrowedInF64) {
    const HostTensor a(DType::f64, {1, 1}, {1}), b(DType::f64, {1, 1}, {3}), c(DType::f64, {1, 1});
    kernels::matmul({.a = a, .b = b, .c = c, .alpha = 1.0 / 3});
    EXPECT_EQ(c.at(0), 1.0);
}

TEST(Matmul, NothingTimesNothingIsZeroAndAddsNothing) {
    for (const auto& [in, out] : all_types) {
        const Operands x({in, out}, {3, 5, 0}, Op::none, Op::none);
        EXPECT_EQ(x.result(2, false).values(), Values(15, 0.0));
        EXPECT_TRUE(same_bits(x.result(2, true), x.c));
    }
}

TEST(Matmul, GivesTheSameBitsEachTime) {
    for (const Types& types : all_types)
        for (int threads : {1, 2, 3}) {
            const Threads scope(threads);
            const Operands x(types, {150, 70, 130}, Op::none, Op::transpose);
            EXPECT_TRUE(same_bits(x.result(0.5, true), x.result(0.5, true))) << name_of(types.in);
        }
}

TEST(Matmul, InF64DoesNotDependOnTheNumberOfThreads) {
    const Operands x({DType::f64, DType::f64}, {50, 70, 130}, Op::transpose, Op::none);
    HostTensor one;
    {
        const Threads scope(1);
        one = x.result(0.5, true);
    }
    for (int threads : {2, 3, 7}) {
        const Threads scope(threads);
        EXPECT_TRUE(same_bits(x.result(0.5, true), one)) << threads << " threads";
    }
}

TEST(Matmul, RefusesWhatDoesNotFit) {
    const auto tensor = [](DType dtype, Shape shape) { return HostTensor(dtype, shape); };
    const HostTensor a = tensor(DType::f32, {3, 4}), b = tensor(DType::f32, {4, 5});
    const HostTensor c = HostTensor::normal(DType::f32, {3, 5}, "c"), before = c.clone();
    EXPECT_NO_THROW(kernels::matmul({.a = a, .b = b, .c = c, .accumulate = true}));
    const auto refused = [](const Matmul& p) { EXPECT_THROW(kernels::matmul(p), InternalError); };
    refused({.a = a, .b = tensor(DType::f32, {3, 5}), .c = c});  // k
    refused({.a = a, .b = b, .c = c, .op_a = Op::transpose});    // k of a'
    refused({.a = a, .b = b, .c = c, .op_b = Op::transpose});    // k of b'
    refused({.a = a, .b = tensor(DType::f32, {4, 6}), .c = c});  // n
    refused({.a = tensor(DType::f32, {2, 4}), .b = b, .c = c});  // m
    refused({.a = a, .b = b, .c = tensor(DType::f32, {5, 3})});  // c transposed
    refused({.a = a, .b = b, .c = tensor(DType::f32, {15})});    // not 2-D
    refused({.a = tensor(DType::f32, {1, 3, 4}), .b = b, .c = c});
    refused({.a = a, .b = tensor(DType::bf16, {4, 5}), .c = c});  // mixed operands
    refused({.a = a, .b = b, .c = tensor(DType::bf16, {3, 5})});  // narrower result
    refused({.a = a, .b = b, .c = tensor(DType::f64, {3, 5})});   // wider than accumulated
    refused(
        {.a = tensor(DType::i32, {3, 4}), .b = tensor(DType::i32, {4, 5}), .c = tensor(DType::i32, {3, 5})});
    refused({.a = tensor(DType::f64, {3, 4}), .b = tensor(DType::f64, {4, 5}), .c = c});
    EXPECT_TRUE(same_bits(c, before));
}

TEST(PeakRate, IsMeasuredInEveryType) {
    for (DType dtype : compute_types) {
        const double rate = kernels::measure_peak_flops(dtype);
        EXPECT_TRUE(std::isfinite(rate) && rate > 0) << rate;
    }
}

}  // namespace matmul_test
}  // namespace switchyard::test
