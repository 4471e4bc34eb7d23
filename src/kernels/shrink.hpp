// The proximal step of an L1 penalty on vectors, and the penalty and its subgradient.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// soft: sign(x) max(|x| - xi, 0), the proximal step of xi |x|. published: what the code of SoRA does
/// instead, x -= xi where x > xi, then x += xi where x < -xi, then 0 where |x| < xi; all of |x| < 2
/// xi becomes 0.
enum class Prox { soft, published };

/// x, f32 or f64, <- its proximal step. `clip` (2) f64: clip coefficient and finite flag of the step; without
/// the flag nothing changes, as in adamw().
void shrink(Tensor x, double xi, Prox, Tensor clip);
/// to += scale * sign(x), 0 where x is 0; f32 or f64, of one type.
void add_signs(Tensor x, double scale, Tensor to);
/// sum (1) f64 += scale * the sum of |x| in order.
void add_l1_norm(Tensor x, double scale, Tensor sum);

}  // namespace switchyard::kernels
