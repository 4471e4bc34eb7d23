// Checks of the arguments of norm.hpp, rope.hpp, swiglu.hpp, embedding.hpp and cross_entropy.hpp, for all
// back ends.
#pragma once

#include <initializer_list>

#include "kernels/checks/tensors.hpp"
#include "kernels/embedding.hpp"

namespace switchyard::kernels {

struct NormSizes {
    std::int64_t rows, width;
};

NormSizes check_norm(Tensor x, Tensor weight, Tensor h, Tensor rstd);

struct RopeSizes {
    std::int64_t batch, tokens, heads, half;  // of a head's size
};

RopeSizes check_rope(Tensor x, Tensor table);

/// `a`: empty if it is not wanted.
void check_swiglu(Tensor gate, std::initializer_list<Tensor> others, Tensor a);

void check_embedding(Tensor tokens, Tensor table, VocabRange range, Tensor x);
void check_logits(Tensor logits, Tensor targets, VocabRange range);

/// `all_stats`: (parts, 3, N).
void check_statistics(Tensor all_stats, Tensor targets, Tensor lse, Tensor loss);

}  // namespace switchyard::kernels
