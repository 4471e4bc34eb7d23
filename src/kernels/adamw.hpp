// AdamW (Loshchilov & Hutter 2019) on the rows that this rank owns, of many parameters in one call, with a
// step counter per row or one for all rows of a parameter.
#pragma once

#include <span>

#include "kernels/rows.hpp"

namespace switchyard::kernels {

struct AdamWSettings {
    double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
};

/// The owned rows of one parameter. The state is contiguous and in accumulate_type; `gradient` and `value`
/// are addressed row by row through `rows`.
struct AdamWRows {
    Tensor master;  // (R, W), updated in place; empty for adam_direction()
    Tensor m, v;    // (R, W)
    Tensor step;    // (R) i32, or (1) for all rows; incremented first, also for frozen rows
    Tensor frozen;  // (R) i32, non-zero: the gradient of this row is taken as zero and it does not decay; or
                    // empty
    Tensor gradient;  // (any, gradient stride) the local gradient tensor, accumulate_type
    Tensor value;  // like gradient, in the compute type; receives the rounded master, whose memory it may be
    Rows rows;     // R rows of `gradient` and `value`, in the order of the state
    std::int64_t column = 0;  // first column of the W owned ones inside gradient and value
    AdamWSettings settings;
};

/// step += 1; m = b1 m + (1-b1) c g; v = b2 v + (1-b2) (c g)^2; p -= lr (wd p + m / (1-b1^step) / (sqrt(v /
/// (1-b2^step)) + eps)). `clip` (2) f64 in back-end memory: {coefficient c, finite flag}; nothing happens
/// where the flag is 0.
void adamw(std::span<const AdamWRows>, Tensor clip);

/// The same step counters and moments without a master: value = m / (1-b1^step) / (sqrt(v / (1-b2^step)) +
/// eps), rounded once. For methods that apply the direction themselves, so that `lr` and `weight_decay` have
/// no effect. value keeps what it held where the finite flag is 0.
void adam_direction(std::span<const AdamWRows>, Tensor clip);

/// clip (2) <- {c, finite} from the squared norm (1) f64 of all gradients. c = limit / norm if limit > 0 and
/// the norm exceeds it, else 1. finite = 0 if the norm or `loss` (1) f64, which may be empty, is NaN or
/// infinite.
void clip_coefficient(Tensor squared_norm, Tensor loss, double limit, Tensor clip);

}  // namespace switchyard::kernels
