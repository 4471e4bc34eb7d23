// Causal grouped-query attention, computed in tiles of queries: no more than one tile of scores per thread
// exists.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// o = softmax(q k' / sqrt(D) + causal mask) v, per head; head h uses key-value head h / (H / K).
/// q, o (B, T, H, D); k, v (B, T, K, D) in the compute type; lse (B, H, T) in accumulate_type: log of the
/// softmax sums. document_start (B, T) i32, or empty: query t attends only to keys document_start[t] ... t.
/// Softmax and sums in accumulate_type. Overwrites o and lse.
void attention_forward(Tensor q, Tensor k, Tensor v, Tensor document_start, Tensor o, Tensor lse);

/// Overwrites d_q (B, T, H, D), d_k and d_v (B, T, K, D). d_q may alias d_o or q only if it is safe tile by
/// tile: the caller never aliases. Scores are recomputed from q, k and lse (Dao et al. 2022, backward pass).
struct AttentionBackward {
    Tensor d_o, q, k, v, o, lse, document_start;
    Tensor d_q, d_k, d_v;
};
void attention_backward(const AttentionBackward&);

}  // namespace switchyard::kernels
