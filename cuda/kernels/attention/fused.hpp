// Attention by a vendor's library, as the choice and attention.cu see it: passes for one shape, which are
// made once.
#pragma once

#include <string>

#include "kernels/attention_sizes.hpp"

namespace switchyard::kernels::attention::fused {

/// "cuDNN 9.19.0"; empty where none can be loaded.
std::string library_text();
/// Why the library cannot compute attentions of these extents in bf16 on this device; "" if it can, with the
/// same bits every time. The first call for a shape takes seconds: the library compiles.
std::string problem_with(const Extents&);

// Only where there is no problem.

/// The sequences that one call of the library gets; divides e.b.
std::int64_t sequences_at_once(const Extents&);
/// Of either pass.
std::size_t scratch_bytes(const Extents&);
/// bf16, lse f32, rows that begin at a multiple of 16 bytes; see attention_forward().
void forward(const Extents&, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, Tensor scratch);
void backward(const Extents&, const AttentionBackward&);

}  // namespace switchyard::kernels::attention::fused
