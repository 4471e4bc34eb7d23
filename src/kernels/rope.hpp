// Rotary position embedding (Su et al. 2021) in the half-rotation convention of Hugging Face: element i of a
// head is paired with element i + D/2, angle position * theta^(-2 i / D).
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

enum class Rotation { forward, backward };

/// table (T, 2, D/2) in accumulate_type: cosines, then sines, of positions first_position ... + T - 1.
void rope_table(Tensor table, double theta, std::int64_t first_position = 0);

/// Rotates x (B, T, H, D) in place; backward rotates by the negative angle (the gradient of forward).
void rope(Tensor x, Tensor table, Rotation);

}  // namespace switchyard::kernels
