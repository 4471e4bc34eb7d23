#include "kernels/checks/model.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {

NormSizes check_norm(Tensor x, Tensor weight, Tensor h, Tensor rstd) {
    check_matrix("input of a norm", x);
    const NormSizes sizes{x.dim(0), x.dim(1)};
    check("norm weight", weight, x.dtype(), {sizes.width});
    check("normalised tensor", h, x.dtype(), x.shape());
    check("norm rstd", rstd, accumulate_type(x.dtype()), {sizes.rows});
    return sizes;
}

RopeSizes check_rope(Tensor x, Tensor table) {
    internal_check(x.shape().rank() == 4 && x.dim(3) % 2 == 0, "rope of a tensor {}", x.shape());
    const RopeSizes sizes{x.dim(0), x.dim(1), x.dim(2), x.dim(3) / 2};
    check("rope table", table, accumulate_type(x.dtype()), {sizes.tokens, 2, sizes.half});
    return sizes;
}

void check_swiglu(Tensor gate, std::initializer_list<Tensor> others, Tensor a) {
    for (Tensor other : others) check("tensor of a swiglu", other, gate.dtype(), gate.shape());
    if (!a.empty()) check("output of a swiglu", a, gate.dtype(), gate.shape());
}

void check_embedding(Tensor tokens, Tensor table, VocabRange range, Tensor x) {
    check_dtype("tokens", tokens, DType::i32);
    internal_check(table.shape().rank() == 2 && range.count <= table.dim(0), "table {} for {} tokens",
                   table.shape(), range.count);
    check_shape("embedded tokens", x, {tokens.size(), table.dim(1)});
}

void check_logits(Tensor logits, Tensor targets, VocabRange range) {
    internal_check(logits.shape().rank() == 2 && range.count <= logits.dim(0), "logits {} for {} tokens",
                   logits.shape(), range.count);
    check("targets", targets, DType::i32, {logits.dim(1)});
}

void check_statistics(Tensor all_stats, Tensor targets, Tensor lse, Tensor loss) {
    internal_check(all_stats.shape().rank() == 3 && all_stats.dim(1) == 3 && all_stats.dtype() != DType::bf16,
                   "softmax statistics {} {}", all_stats.shape(), name_of(all_stats.dtype()));
    const std::int64_t tokens = all_stats.dim(2);
    check("targets", targets, DType::i32, {tokens});
    check("softmax sums", lse, all_stats.dtype(), {tokens});
    check("loss", loss, DType::f64, {1});
}

}  // namespace switchyard::kernels
