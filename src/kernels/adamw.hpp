// AdamW (Loshchilov & Hutter 2019) on the rows that this rank owns, with a step counter per row or one for
// all.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// All state in accumulate_type, contiguous; `gradient` and `value` are addressed row by row through
/// `gradient_rows`.
struct AdamWRows {
    Tensor master;    // (R, W): updated in place
    Tensor m, v;      // (R, W)
    Tensor step;      // (R) i32, or (1) for all rows: incremented first, frozen rows included
    Tensor frozen;    // (R) i32, non-zero: no weight decay on this row; or empty
    Tensor gradient;  // (any, gradient stride) the local gradient tensor, accumulate_type
    Tensor value;     // like gradient, compute type: receives the rounded master; may be master's own memory
    Tensor gradient_rows;     // (R) i32: row of `gradient` and `value` for each owned row
    std::int64_t column = 0;  // first column of the W owned ones inside gradient and value
};

struct AdamWSettings {
    double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
};

/// step += 1; m = b1 m + (1-b1) c g; v = b2 v + (1-b2) (c g)^2; p -= lr (wd p + m / (1-b1^step) / (sqrt(v /
/// (1-b2^step)) + eps)). `clip` (2) f64 in back-end memory: {coefficient c, finite flag}; nothing happens
/// where the flag is 0.
void adamw(const AdamWRows&, const AdamWSettings&, Tensor clip);

}  // namespace switchyard::kernels
