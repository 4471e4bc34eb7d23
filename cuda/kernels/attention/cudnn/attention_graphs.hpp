// Attention as graphs of operations that cuDNN recognises and computes in one kernel, or a few.
#pragma once

#include "cuda/kernels/attention/cudnn/graph.hpp"
#include "kernels/attention_sizes.hpp"

namespace switchyard::kernels::attention::fused {

/// Takes q, k, v, o, lse and the numbers 1 / sqrt(D) and -infinity.
cuda::cudnn::Graph forward_graph(const Extents&);
/// Takes q, k, v, o, d_o, lse, delta, d_q, d_k, d_v, the same numbers, and 1. delta (B, H, T) f32 is scratch.
/// d_q is one product over all keys, whose other factor cuDNN keeps whole in its workspace: blocks that added
/// to d_q as they come would give other bits each time.
cuda::cudnn::Graph backward_graph(const Extents&);
/// Of that factor, as cuDNN pads it.
std::size_t scores_bytes(const Extents&);

}  // namespace switchyard::kernels::attention::fused
