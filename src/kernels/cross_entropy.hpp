// Vocab-parallel softmax cross-entropy on a chunk of n tokens. Logits are stored as (V local padded, n), so
// that sums over the vocabulary run along vectors of tokens. A target of -1 is ignored (loss and gradient
// zero).
#pragma once

#include "core/tensor.hpp"
#include "kernels/embedding.hpp"

namespace switchyard::kernels {

/// Bytes of the logits of one chunk of tokens: few enough to stay close to the cores, many enough to keep the
/// back end busy.
std::size_t logits_chunk_bytes();

/// stats (3, n) in accumulate_type = max, sum exp(logit - max), logit of the target (0 where another rank
/// holds it), over the first range.count rows of logits (V local padded, n). targets (n) i32, global token
/// ids.
void softmax_statistics(Tensor logits, Tensor targets, VocabRange, Tensor stats);

/// Combines all_stats (P, 3, n), the statistics of all tp ranks in rank order, into lse (n). loss (1) f64 in
/// back-end memory += the sum of lse - target logit over the tokens with a target, summed in f64 in an order
/// that depends on n alone.
void combine_statistics(Tensor all_stats, Tensor targets, Tensor lse, Tensor loss);

/// logits (V local padded, n) <- scale * (softmax - onehot(target)), in place; padded rows and ignored tokens
/// <- 0.
void cross_entropy_backward(Tensor logits, Tensor lse, Tensor targets, VocabRange, double scale);

}  // namespace switchyard::kernels
