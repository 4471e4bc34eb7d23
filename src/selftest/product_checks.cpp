// Matrix products in the three forms of training, and the effective weight of a frozen one.
#include "kernels/frozen_weight.hpp"
#include "kernels/matmul.hpp"
#include "selftest/kernel_checks.hpp"

namespace switchyard::selftest {

using kernels::matmul;
using kernels::Op;

namespace {

constexpr std::int64_t m = 33, n = 47, k = 65;

/// Element (i, j) is values[i * row + j * column].
struct Matrix {
    Values values;
    std::int64_t row, column;
    double at(std::int64_t i, std::int64_t j) const {
        return values[static_cast<std::size_t>(i * row + j * column)];
    }
};

/// alpha a b + c
Values product(double alpha, const Matrix& a, const Matrix& b, Values c) {
    for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (std::int64_t p = 0; p < k; ++p) sum += a.at(i, p) * b.at(p, j);
            c[static_cast<std::size_t>(i * n + j)] += alpha * sum;
        }
    return c;
}

}  // namespace

std::vector<Comparison> check_matmul(DType compute) {
    Operands operands;
    const Values zeros(static_cast<std::size_t>(m * n));
    const Tensor a = operands.normal(compute, {m, k}, "a"), b = operands.normal(compute, {k, n}, "b"),
                 a_columns = operands.normal(compute, {k, m}, "a columns"),
                 b_columns = operands.normal(compute, {n, k}, "b columns");
    const Matrix host_a{values_of(a), k, 1}, host_b{values_of(b), n, 1},
        host_a_columns{values_of(a_columns), 1, m}, host_b_columns{values_of(b_columns), 1, k};
    std::vector<Comparison> found;
    const auto compare = [&](const char* what, Tensor c, Values expected) {
        found.push_back({what, values_of(c), std::move(expected), tolerance(c.dtype(), 2, k)});
    };

    const Tensor forward = operands.output(compute, {m, n});
    matmul({.a = a, .b = b_columns, .c = forward, .op_b = Op::transpose});
    compare("a b'", forward, product(1, host_a, host_b_columns, zeros));

    const Tensor input_gradient = operands.output(compute, {m, n});
    matmul({.a = a, .b = b, .c = input_gradient, .alpha = 0.5});
    compare("a b", input_gradient, product(0.5, host_a, host_b, zeros));

    const Tensor weight_gradient = operands.normal(accumulate_type(compute), {m, n}, "c");
    const Values before = values_of(weight_gradient);
    matmul({.a = a_columns, .b = b, .c = weight_gradient, .op_a = Op::transpose, .accumulate = true});
    compare("c + a' b", weight_gradient, product(1, host_a_columns, host_b, before));
    return found;
}

std::vector<Comparison> check_merge(DType compute) {
    Operands operands;
    constexpr std::int64_t low_rank = 5;
    const double scale = 0.75;
    const DType wide = accumulate_type(compute);
    const Tensor value = operands.normal(wide, {m, n}, "w"), a = operands.normal(compute, {low_rank, n}, "a"),
                 b = operands.normal(compute, {low_rank, m}, "b"), merged = operands.output(compute, {m, n});
    kernels::FrozenWeight words{.hi = operands.output(compute, {m, n})};
    if (compute == DType::bf16) words.lo = operands.zeros(DType::i16, {m, n});
    kernels::store_frozen(value, words);
    const Tensor loaded = operands.output(wide, {m, n});
    kernels::load_frozen(words, loaded);
    kernels::merge(words, {.factors = {.a = a, .b_transposed = b, .scale = scale}}, merged,
                   operands.scratch(kernels::frozen_scratch_bytes(m, n, compute)));

    const Values w = values_of(value), host_a = values_of(a), host_b = values_of(b);
    Values expected = w;
    for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j)
            for (std::int64_t s = 0; s < low_rank; ++s)
                expected[static_cast<std::size_t>(i * n + j)] += scale *
                                                                 host_b[static_cast<std::size_t>(s * m + i)] *
                                                                 host_a[static_cast<std::size_t>(s * n + j)];
    return {{"stored and loaded", values_of(loaded), w, 0},
            {"W + s B A", values_of(merged), expected, tolerance(compute, 2, low_rank + 1)}};
}

}  // namespace switchyard::selftest
