// Strides of the tensor-level product; the work is in gemm.cpp (oneDNN) and gemm_f64.cpp.
#include "kernels/matmul.hpp"

#include <omp.h>

#include "core/calls.hpp"
#include "kernels/cpu/gemm.hpp"
#include "kernels/product_sizes.hpp"

namespace switchyard::kernels {

void matmul(const Matmul& p) {
    count_kernel(__func__);
    const auto [m, n, k] = product_sizes(p);
    const bool a_transposed = p.op_a == Op::transpose, b_transposed = p.op_b == Op::transpose;
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

std::int64_t peak_product_size(DType dtype) {
    return dtype == DType::f64 ? 512 : 1024;
}

int num_threads() {
    return omp_get_max_threads();
}

}  // namespace switchyard::kernels
