// Vocab-parallel softmax cross-entropy of n tokens, a block of the vocabulary at a time: logits (rows of the
// vocabulary, n) lie so that vectors hold tokens, and a block stays in cache between its product and its
// sums. A target of -1 is ignored (loss and gradient zero).
#pragma once

#include "core/tensor.hpp"
#include "kernels/embedding.hpp"

namespace switchyard::kernels {

/// stats (3, n) in accumulate_type <- those of no logits at all: max = -inf, sum = 0, target's logit = 0.
void reset_statistics(Tensor stats);

/// stats (3, n) = max, sum exp(logit - max), logit of the target (0 where it is elsewhere) <- those of what
/// they describe and of the first range.count rows of logits (rows, n) together (Milakov & Gimelshein 2018).
/// targets (n) i32, global token ids; range: the token ids of the block.
void softmax_statistics(Tensor logits, Tensor targets, VocabRange, Tensor stats);

/// all_stats (P, 3, n), the statistics of all tp ranks in rank order -> lse (n); returns the sum of lse -
/// target logit over the tokens with a target, in f64, added in token order.
double combine_statistics(Tensor all_stats, Tensor targets, Tensor lse);

/// logits (rows, n) <- scale * (softmax - onehot(target)), in place; padded rows and ignored tokens <- 0.
void cross_entropy_backward(Tensor logits, Tensor lse, Tensor targets, VocabRange, double scale);

}  // namespace switchyard::kernels
