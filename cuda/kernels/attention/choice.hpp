// The shape whose attentions are a library's.
#pragma once

#include "kernels/attention_choice.hpp"
#include "kernels/attention_sizes.hpp"

namespace switchyard::kernels::attention {

/// True if a pass over these tensors is the library's.
bool is_fused(const Extents&, Tensor first_key, std::initializer_list<Tensor>);
/// Scratch that passes of these extents need beyond our own kernels'.
std::size_t fused_scratch_bytes(const Extents&, DType compute);

}  // namespace switchyard::kernels::attention
