// Reductions whose results stay in back-end memory as f64; a step reads them all at once (StepScalars). The
// bits do not depend on the number of threads. Sums of squares of rows are in rows.hpp.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// result (1) f64 <- sum of squares; NaN or infinity if an element is.
void squared_norm(Tensor, Tensor result);
/// result (1) f64 <- the largest magnitude; NaN if an element is NaN, 0 for no elements.
void max_abs(Tensor, Tensor result);

/// result (1) f64 <- sum of weights[i] * values[i], both (n) f64, in order of i.
void weighted_sum(Tensor values, Tensor weights, Tensor result);

enum class Combine { sum, max };
/// result (w) f64 <- the sum of the rows of `parts` (P, w) f64 in order, or their maximum; NaN if one is NaN.
void combine_parts(Tensor parts, Combine, Tensor result);

/// The numbers by which a change of a linear's stored weight and factors is judged. ratios (2) f64 <- {d / e,
/// d / max(e, w0, w1)} of numbers (4) f64 = {e, d, w0, w1}: max |W_eff| before, max |its change|, max |W|
/// before and after. If e is 0, the smallest normal number is used.
void change_ratios(Tensor numbers, Tensor ratios);

}  // namespace switchyard::kernels
