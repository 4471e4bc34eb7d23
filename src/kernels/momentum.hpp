// Optimizers whose state is a first moment alone: the moment and the direction that it gives, and a direction
// of any origin applied to a weight. Tensors are contiguous.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// Tensors of one shape.
struct MomentumStep {
    Tensor m;          // accumulate_type, updated in place
    Tensor gradient;   // accumulate_type
    Tensor direction;  // compute type, overwritten
    double momentum = 0;
    bool nesterov = false;
};
/// m = mu m + (1 - mu) c g; direction = m or, with `nesterov`, mu m + (1 - mu) c g of the new m, rounded
/// once. `clip` (2) f64 in back-end memory: {coefficient c, finite flag}; nothing happens where the flag is
/// 0.
void momentum(const MomentumStep&, Tensor clip);

/// Tensors of one shape.
struct DirectedStep {
    Tensor master;     // accumulate_type, updated in place
    Tensor direction;  // compute type
    Tensor value;      // compute type; receives the rounded master, whose memory it may be
    double decay = 1, scale = 1;
};
/// master = decay master + scale direction. Nothing happens where the finite flag of `clip` is 0; its
/// coefficient has no effect.
void apply_direction(const DirectedStep&, Tensor clip);

}  // namespace switchyard::kernels
