// Reductions whose results stay in back-end memory, as f64: a step reads them all at once (StepScalars). The
// same bits for any number of threads. Sums of squares of rows: rows.hpp.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// result (1) f64 <- sum of squares; NaN or infinity if an element is.
void squared_norm(Tensor, Tensor result);
/// result (1) f64 <- the largest magnitude; NaN if there is one, 0 of nothing.
void max_abs(Tensor, Tensor result);

/// result (1) f64 <- sum of weights[i] * values[i], both (n) f64, in order of i.
void weighted_sum(Tensor values, Tensor weights, Tensor result);

enum class Combine { sum, max };
/// result (w) f64 <- the rows of `parts` (P, w) f64 added in order, or the largest; NaN where one is.
void combine_parts(Tensor parts, Combine, Tensor result);

/// What a change of a linear's stored weight and factors is judged by: ratios (2) f64 <- {d / e, d / max(e,
/// w0, w1)} of numbers (4) f64 = {e, d, w0, w1}: max |W_eff| before, max |its change|, and max |W| before and
/// after. e counts as the smallest normal number where it is 0.
void change_ratios(Tensor numbers, Tensor ratios);

}  // namespace switchyard::kernels
