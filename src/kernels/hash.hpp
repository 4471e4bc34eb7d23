// Hashes of the bits of tensors: equal bits have equal hashes, and one flipped bit always changes the hash.
#pragma once

#include <span>

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// hashes (n) i64 [t] <- sum over the elements i of tensors[t] of mix64(i * 0x9E3779B97F4A7C15 + bits) modulo
/// 2^64, with the flat index i and zero-extended bits: the checksum of checkpoints, over the tensor as stored
/// on this rank. Tensors have any type and shape; an empty one gives 0.
void hash_bits(std::span<const Tensor> tensors, Tensor hashes);

}  // namespace switchyard::kernels
