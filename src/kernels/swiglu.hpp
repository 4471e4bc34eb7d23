// SwiGLU (Shazeer 2020): a = silu(gate) * up.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// gate, up, a (N, F). Overwrites a.
void swiglu_forward(Tensor gate, Tensor up, Tensor a);

/// Overwrites d_gate and d_up, which may be gate and up themselves. If `a` is not empty, it is overwritten
/// with silu(gate) * up, recomputed. d_a (N, F) may alias a, because it is read before a is written.
void swiglu_backward(Tensor d_a, Tensor gate, Tensor up, Tensor d_gate, Tensor d_up, Tensor a);

}  // namespace switchyard::kernels
