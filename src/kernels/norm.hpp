// RMSNorm (Zhang & Sennrich 2019), with the residual addition before it: h = x / sqrt(mean(x^2) + eps) *
// weight.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// x (N, C), weight (C), h (N, C) in the compute type; rstd (N) in accumulate_type. Overwrites h and rstd.
void rms_norm_forward(Tensor x, Tensor weight, Tensor h, Tensor rstd, double eps);

/// sum = x + y, then the same with `sum` as x. sum may be x or y. y is the output of a half-block, reduced
/// over tp.
void add_rms_norm_forward(Tensor x, Tensor y, Tensor weight, Tensor sum, Tensor h, Tensor rstd, double eps);

/// d_x, which holds the gradient of the residual stream, += the gradient through the norm; d_weight (C,
/// accumulate_type) +=. x is the input of the norm (`sum` above); d_h (N, C). Deterministic for a given
/// number of threads. `scratch`: at least rms_norm_scratch_bytes(), with undefined content.
void rms_norm_backward(Tensor d_h, Tensor x, Tensor weight, Tensor rstd, Tensor d_x, Tensor d_weight,
                       Tensor scratch);
std::size_t rms_norm_scratch_bytes(std::int64_t rows, std::int64_t width, DType compute);

}  // namespace switchyard::kernels
