// Copies, conversions and sums of whole tensors. For some rows of tensors see rows.hpp.
#pragma once

#include <span>

#include "core/tensor.hpp"

namespace switchyard::kernels {

void zero(Tensor);
/// Sets all of these tensors to zero in one call.
void zero(std::span<const Tensor>);
void fill(Tensor, double value);
/// Copies between tensors of the same shape; converts between f32, bf16 and f64, rounding to nearest even.
void copy(Tensor from, Tensor to);
/// to += alpha * from. The dtypes may differ; the sum is rounded once.
void add(Tensor from, Tensor to, double alpha = 1.0);
/// to (R, n) = transpose of from (n, R), converting dtypes.
void transpose(Tensor from, Tensor to);

}  // namespace switchyard::kernels
