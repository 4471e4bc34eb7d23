// Hashes of the bits of tensors: equal for equal bits, and for a single flipped bit never.
#pragma once

#include <span>

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// hashes (n) i64 [t] <- sum over the elements i of tensors[t] of mix64(i * 0x9E3779B97F4A7C15 + bits) modulo
/// 2^64, i the flat index and bits zero-extended: the checksum of checkpoints over the tensor as it lies
/// here. Tensors of any type and shape; 0 for an empty one.
void hash_bits(std::span<const Tensor> tensors, Tensor hashes);

}  // namespace switchyard::kernels
