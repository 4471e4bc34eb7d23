// Vocab-parallel embedding: this rank holds the table rows of tokens begin ... begin + count - 1 of its
// VocabRange.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

struct VocabRange {
    std::int64_t begin = 0, count = 0;
};

/// x (N, C) = the table row of each token, zero if another rank holds it. tokens (N) i32; table (V local
/// padded, C).
void embedding_forward(Tensor tokens, Tensor table, VocabRange, Tensor x);

/// d_table (V local padded, C, accumulate_type) += rows of d_x (N, C, compute type), summed in token order.
void embedding_backward(Tensor tokens, Tensor d_x, VocabRange, Tensor d_table);

}  // namespace switchyard::kernels
