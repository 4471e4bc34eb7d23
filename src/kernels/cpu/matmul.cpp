// Checks and strides of the tensor-level product; the work is in gemm.cpp (oneDNN) and gemm_f64.cpp.
#include "kernels/matmul.hpp"

#include <omp.h>

#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "kernels/cpu/gemm.hpp"

namespace switchyard::kernels {
namespace {

bool is_compute_type(DType dtype) {
    return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64;
}

void check(const Matmul& p, std::int64_t m, std::int64_t k, std::int64_t k_of_b, std::int64_t n) {
    internal_check(k == k_of_b && p.c.dim(0) == m && p.c.dim(1) == n,
                   "matmul: a {}{} times b {}{} does not give c {}", p.a.shape(),
                   p.op_a == Op::transpose ? "'" : "", p.b.shape(), p.op_b == Op::transpose ? "'" : "",
                   p.c.shape());
    internal_check(is_compute_type(p.a.dtype()) && p.a.dtype() == p.b.dtype() &&
                       (p.c.dtype() == p.a.dtype() || p.c.dtype() == accumulate_type(p.a.dtype())),
                   "matmul: {} times {} into {}", name_of(p.a.dtype()), name_of(p.b.dtype()),
                   name_of(p.c.dtype()));
}

}  // namespace

void matmul(const Matmul& p) {
    count_kernel(__func__);
    internal_check(p.a.shape().rank() == 2 && p.b.shape().rank() == 2 && p.c.shape().rank() == 2,
                   "matmul: shapes {}, {}, {} are not all 2-D", p.a.shape(), p.b.shape(), p.c.shape());
    const bool a_transposed = p.op_a == Op::transpose, b_transposed = p.op_b == Op::transpose;
    const std::int64_t m = p.a.dim(a_transposed ? 1 : 0), k = p.a.dim(a_transposed ? 0 : 1), n = p.c.dim(1);
    check(p, m, k, p.b.dim(b_transposed ? 1 : 0), p.b.dim(b_transposed ? 0 : 1));
    Gemm g{.m = m,
           .n = n,
           .k = k,
           .c_row = n,
           .in = p.a.dtype(),
           .out = p.c.dtype(),
           .alpha = static_cast<float>(p.alpha),
           .accumulate = p.accumulate};
    // oneDNN requires one stride of 1 and the other at least the extent, also for a single row or column.
    g.a_row = a_transposed ? 1 : k, g.a_col = a_transposed ? m : 1;
    g.b_row = b_transposed ? 1 : n, g.b_col = b_transposed ? k : 1;
    if (g.in == DType::f64 && k > 0)
        return gemm_f64(g, p.alpha, p.a.data<double>(), p.b.data<double>(), p.c.data<double>());
    gemm(g, p.a.raw(), p.b.raw(), p.c.raw());
}

int num_threads() {
    return omp_get_max_threads();
}

}  // namespace switchyard::kernels
