// Gradient descent on the rows that this rank owns, with a factor for each row and one for the tensor, and
// the limit on the growth of an update's norm. For methods that scale gradients instead of keeping moments of
// their size (APOLLO, arXiv 2412.05270).
#pragma once

#include <span>

#include "kernels/rows.hpp"

namespace switchyard::kernels {

/// The owned rows of one parameter, W (R, w).
struct ScaledRows {
    Tensor master;    // (R, w) in accumulate_type, updated in place
    Tensor gradient;  // (any, w) the local gradient, accumulate_type
    Tensor value;     // like gradient, in the compute type; receives the rounded master, whose memory it may
                      // be
    Rows rows;        // R rows of `gradient` and `value`, in the order of the master: a range
    Tensor scale;     // (R) in accumulate_type; empty: ones
    Tensor factor;    // (1) f64
    double lr = 0, alpha = 1, weight_decay = 0;
};

/// W_i -= lr (alpha factor scale_i G_i + weight_decay W_i). `clip` (2) f64: nothing happens where its finite
/// flag is 0, as in adamw(); its coefficient is not applied, because `scale` is made for the gradient as it
/// is.
void scaled_descent(std::span<const ScaledRows>, Tensor clip);

/// Fira's limiter (arXiv 2410.01623), for n tensors at once: with norms u = sqrt(squares), factors <- min(1,
/// growth previous / u), and previous <- factors u. There is no limit where `previous` is 0, as at the start,
/// or if growth is 0. All (n) f64; nothing changes where the finite flag of `clip` is 0.
void limit_growth(Tensor squares, double growth, Tensor clip, Tensor previous, Tensor factors);

}  // namespace switchyard::kernels
