// Copies, casts, sums and norms over whole tensors. Deterministic for a given number of threads.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

void zero(Tensor);
void fill(Tensor, double value);
/// Same shape; converts between f32, bf16 and f64, rounding to nearest even.
void copy(Tensor from, Tensor to);
/// to += alpha * from; dtypes may differ, the sum is rounded once.
void add(Tensor from, Tensor to, double alpha = 1.0);
/// to (R, n) = transpose of from (n, R), converting dtypes.
void transpose(Tensor from, Tensor to);

/// Sum of squares in f64; NaN or infinity if an element is.
double squared_norm(Tensor);
/// Same over some rows (and columns column ... column + width - 1) of a 2-D tensor. rows (R) i32.
double squared_norm_rows(Tensor, Tensor rows, std::int64_t column, std::int64_t width);
double max_abs(Tensor);

/// A rectangle of a 2-D tensor: rows listed one by one, one range of columns.
struct Rectangle {
    const std::int32_t* rows = nullptr;  // host memory
    std::int64_t num_rows = 0, column = 0, width = 0;
};
/// packed (num_rows, width) <- rectangle of `from`, converting to packed's dtype.
void pack(Tensor from, const Rectangle&, Tensor packed);
/// Rectangle of `to` <- packed (num_rows, width), converting.
void unpack(Tensor packed, const Rectangle&, Tensor to);

/// Rectangle of `to` <- its P parts summed in order 0 ... P-1, in accumulate_type of `to`, rounded once. Part
/// `own` is the rectangle itself, rounded to the type of `parts`; part p else lies in row p of `parts` (P, n)
/// from column `offset` on, row after row of the rectangle.
void sum_parts(Tensor parts, std::int64_t offset, std::int64_t own, const Rectangle&, Tensor to);

}  // namespace switchyard::kernels
