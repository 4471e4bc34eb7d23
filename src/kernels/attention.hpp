// Causal grouped-query attention, computed in tiles of queries; each thread holds the scores of one tile at
// most.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// o = softmax(q k' / sqrt(D) + mask) v, per head; head h uses key-value head h / (H / K).
/// q, o (B, T, H, D); k, v (B, T, K, D) in the compute type; lse (B, H, T) in accumulate_type: log of the
/// softmax sums. first_key (T) or (B, T) i32, or empty for zeros: query t sees keys first_key[t] ... t, of
/// which there is at least one. Softmax and sums run in accumulate_type. Overwrites o and lse. `scratch`: at
/// least attention_scratch_bytes(), with undefined content.
void attention_forward(Tensor q, Tensor k, Tensor v, Tensor first_key, Tensor o, Tensor lse, Tensor scratch);

/// Overwrites d_q (B, T, H, D), d_k and d_v (B, T, K, D), which must not alias the inputs. Scores are
/// recomputed from q, k and lse (Dao et al. 2022, backward pass).
struct AttentionBackward {
    Tensor d_o, q, k, v, o, lse, first_key;
    Tensor d_q, d_k, d_v;
    Tensor scratch;
};
void attention_backward(const AttentionBackward&);

/// Scratch of either pass, with the number of threads that kernels use now.
std::size_t attention_scratch_bytes(const Shape& q, const Shape& k, DType compute);

}  // namespace switchyard::kernels
