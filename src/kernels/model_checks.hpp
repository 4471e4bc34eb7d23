// Checks of the arguments of norm.hpp, embedding.hpp and cross_entropy.hpp, for all back ends.
#pragma once

#include "kernels/checks.hpp"
#include "kernels/embedding.hpp"

namespace switchyard::kernels {

struct NormSizes {
    std::int64_t rows, width;
};

inline NormSizes check_norm(Tensor x, Tensor weight, Tensor h, Tensor rstd) {
    internal_check(x.shape().rank() == 2, "norm of a tensor {}", x.shape());
    const NormSizes sizes{x.dim(0), x.dim(1)};
    check("norm weight", weight, x.dtype(), {sizes.width});
    check("normalised tensor", h, x.dtype(), x.shape());
    check("norm rstd", rstd, accumulate_type(x.dtype()), {sizes.rows});
    return sizes;
}

inline void check_embedding(Tensor tokens, Tensor table, VocabRange range, Tensor x) {
    check_dtype("tokens", tokens, DType::i32);
    internal_check(table.shape().rank() == 2 && range.count <= table.dim(0), "table {} for {} tokens",
                   table.shape(), range.count);
    check_shape("embedded tokens", x, {tokens.size(), table.dim(1)});
}

inline void check_logits(Tensor logits, Tensor targets, VocabRange range) {
    internal_check(logits.shape().rank() == 2 && range.count <= logits.dim(0), "logits {} for {} tokens",
                   logits.shape(), range.count);
    check("targets", targets, DType::i32, {logits.dim(1)});
}

}  // namespace switchyard::kernels
