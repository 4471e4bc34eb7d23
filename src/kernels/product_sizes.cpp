// What matmul() refuses, the same on every back end.
#include "kernels/product_sizes.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {
namespace {

bool is_compute_type(DType dtype) {
    return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64;
}

}  // namespace

ProductSizes product_sizes(const Matmul& p) {
    internal_check(p.a.shape().rank() == 2 && p.b.shape().rank() == 2 && p.c.shape().rank() == 2,
                   "matmul: shapes {}, {}, {} are not all 2-D", p.a.shape(), p.b.shape(), p.c.shape());
    const bool a_transposed = p.op_a == Op::transpose, b_transposed = p.op_b == Op::transpose;
    const ProductSizes sizes{p.a.dim(a_transposed ? 1 : 0), p.c.dim(1), p.a.dim(a_transposed ? 0 : 1)};
    internal_check(p.b.dim(b_transposed ? 1 : 0) == sizes.k && p.c.dim(0) == sizes.m &&
                       p.b.dim(b_transposed ? 0 : 1) == sizes.n,
                   "matmul: a {}{} times b {}{} does not give c {}", p.a.shape(), a_transposed ? "'" : "",
                   p.b.shape(), b_transposed ? "'" : "", p.c.shape());
    internal_check(is_compute_type(p.a.dtype()) && p.a.dtype() == p.b.dtype() &&
                       (p.c.dtype() == p.a.dtype() || p.c.dtype() == accumulate_type(p.a.dtype())),
                   "matmul: {} times {} into {}", name_of(p.a.dtype()), name_of(p.b.dtype()),
                   name_of(p.c.dtype()));
    return sizes;
}

}  // namespace switchyard::kernels
