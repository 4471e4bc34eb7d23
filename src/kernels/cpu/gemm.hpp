// Strided matrix product behind matmul, attention and frozen weights (CPU back end only). Outside a parallel
// region it uses all threads, inside one only the calling thread.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// c (m, n) = alpha a (m, k) b (k, n), or += with `accumulate`. Strides count elements; one of the two
/// strides of a is 1, and one of b's; c's columns are contiguous. a and b are of type `in`, c of type `out`
/// (bf16: bf16 or f32). Sums run in f32 (f64) and are rounded once; for a given description and number of
/// threads the bits are always the same. alpha multiplies the product before c is added.
struct Gemm {
    std::int64_t m = 0, n = 0, k = 0;
    std::int64_t a_row = 0, a_col = 1, b_row = 0, b_col = 1, c_row = 0;
    DType in = DType::f32, out = DType::f32;
    float alpha = 1;
    bool accumulate = false;
    bool operator==(const Gemm&) const = default;
};
void gemm(const Gemm&, const void* a, const void* b, void* c);

/// The f64 product with alpha in f64. Each element is summed in order of k.
void gemm_f64(const Gemm&, double alpha, const double* a, const double* b, double* c);

/// The bf16 product (m, n, k > 0) computed through f32. gemm() calls it where oneDNN has no fast bf16
/// product.
void gemm_widened(const Gemm&, const void* a, const void* b, void* c);

}  // namespace switchyard::kernels
