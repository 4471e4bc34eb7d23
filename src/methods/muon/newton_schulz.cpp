// Products have one factor, no factor for what they are added to, so that the iteration runs on Y = X / a^k:
// with G = X X', a X + b G X + c G^2 X = a (X + b/a (G + c/b G^2) X).
#include "methods/muon/newton_schulz.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "kernels/reductions.hpp"
#include "kernels/scaling.hpp"

namespace switchyard {
namespace {

using kernels::matmul;
using kernels::Op;

constexpr double a = 3.4445, b = -4.7750, c = 2.0315;  // Jordan et al. 2024
constexpr double smallest_norm = 1e-7;                 // the same

}  // namespace

void NewtonSchulz::expect(std::int64_t m, std::int64_t n) {
    elements_ = std::max(elements_, m * n);
    smaller_ = std::max(smaller_, std::min(m, n));
}

void NewtonSchulz::allocate(Arena& arena, DType compute) {
    const auto take = [&](DType dtype, std::int64_t size) {
        return arena.take(MemoryClass::workspace, dtype, {size});
    };
    input_ = take(compute, elements_);
    spare_ = take(compute, elements_);
    gram_ = take(compute, smaller_ * smaller_);
    polynomial_ = take(compute, smaller_ * smaller_);
    squared_norm_ = take(DType::f64, 1);
}

Tensor NewtonSchulz::input(std::int64_t m, std::int64_t n) const {
    return input_.rows(0, m * n).reshape({m, n});
}

Tensor NewtonSchulz::spare(std::int64_t m, std::int64_t n) const {
    return spare_.rows(0, m * n).reshape({m, n});
}

Tensor NewtonSchulz::run(std::int64_t m, std::int64_t n, int iterations) const {
    const bool tall = m > n;  // the Gram matrix is that of the columns
    const std::int64_t smaller = std::min(m, n);
    const Tensor gram = gram_.rows(0, smaller * smaller).reshape({smaller, smaller}),
                 polynomial = polynomial_.rows(0, smaller * smaller).reshape({smaller, smaller});
    Tensor x = input(m, n), next = spare(m, n);
    kernels::squared_norm(x, squared_norm_);
    kernels::divide_by_norm(x, squared_norm_, smallest_norm);
    for (int k = 0; k < iterations; ++k) {
        const double s = scale(k);
        matmul({.a = x,
                .b = x,
                .c = gram,
                .op_a = tall ? Op::transpose : Op::none,
                .op_b = tall ? Op::none : Op::transpose,
                .alpha = s * s});
        kernels::copy(gram, polynomial);
        matmul({.a = gram, .b = gram, .c = polynomial, .alpha = c / b, .accumulate = true});
        kernels::copy(x, next);
        matmul({.a = tall ? x : polynomial,
                .b = tall ? polynomial : x,
                .c = next,
                .alpha = b / a,
                .accumulate = true});
        std::swap(x, next);
    }
    return x;
}

double NewtonSchulz::scale(int iterations) {
    return std::pow(a, iterations);
}

double NewtonSchulz::operations(std::int64_t m, std::int64_t n, int iterations) {
    const auto smaller = static_cast<double>(std::min(m, n)), larger = static_cast<double>(std::max(m, n));
    return iterations * (4 * smaller * smaller * larger + 2 * smaller * smaller * smaller);
}

}  // namespace switchyard
