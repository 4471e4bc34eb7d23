// d_y and x are complete where their dimension is whole, so every product here is of local tensors; what is
// partial over tp is summed with the gradients of the step.
#include "methods/galore/projected_adapter.hpp"

#include "kernels/elementwise.hpp"

namespace switchyard {
namespace {

using kernels::matmul;
using kernels::Op;

/// Bytes, rounded up so that what follows begins at a cache line.
std::int64_t aligned(std::int64_t bytes) {
    return (bytes + 63) / 64 * 64;
}

Tensor part_of(Tensor bytes, std::int64_t first, DType dtype, Shape shape) {
    const std::int64_t size = shape.size() * static_cast<std::int64_t>(size_of(dtype));
    return bytes.rows(first, size).view(dtype, shape);
}

}  // namespace

ProjectedAdapter::ProjectedAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank,
                                   Projected side, bool follows)
    : side_(side),
      kept_(side == Projected::in ? linear.out() : linear.in()),
      projected_(side == Projected::in ? linear.in() : linear.out()) {
    const bool kept_is_split = !cut_over_tp(side, linear);
    const DType wide = context.accumulate();
    Arena& arena = context.arena;
    const Shape kept{kept_.padded, low_rank}, projected{projected_.padded, low_rank};
    direction_.shard = {linear.name() + ".direction", {kept_.size, low_rank}, kept_.begin, 0,
                        kept_.count,                  low_rank,               0};
    direction_.value = arena.take(MemoryClass::trainable, context.dtype, kept);
    direction_.gradient = arena.take(MemoryClass::gradients, wide, kept);
    direction_.tp_gradient = kept_is_split ? TpGradient::own : TpGradient::partial;
    direction_.transposed = !of_inputs();  // moments have the shape of a projected weight
    direction_.stored = false;
    direction_.moments_name = linear.name() + ".weight";
    basis_ = arena.take(MemoryClass::trainable, context.dtype, projected);
    if (follows) image_ = arena.take(MemoryClass::gradients, wide, projected);
    z_ = arena.shared(context.dtype, {context.tokens(), low_rank});
    const RowSlice slice = linear.frozen_slice(context);
    copies_ = slice.kept == linear.out().padded ? context.topology.dp_size() : 1;
    const std::int64_t factors =
        aligned(kept.size() * static_cast<std::int64_t>(size_of(wide))) +
        aligned(projected.size() * static_cast<std::int64_t>(size_of(wide)));
    scratch_ = arena.shared(
        DType::u8, {factors + static_cast<std::int64_t>(kernels::frozen_scratch_bytes(
                                  slice.kept, linear.in().padded, context.dtype))});
}

TpGradient ProjectedAdapter::tp_of_projected() const {
    return direction_.tp_gradient == TpGradient::own ? TpGradient::partial : TpGradient::own;
}

void ProjectedAdapter::forward(const Linear& linear, Tensor x, Tensor y) {
    matmul({.a = x, .b = linear.weight(), .c = y, .op_b = Op::transpose});
}

void ProjectedAdapter::backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    const Tensor kept = of_inputs() ? d_y : x, projected = of_inputs() ? x : d_y;
    if (whole_.empty()) {
        matmul({.a = projected, .b = basis_, .c = z_});
        matmul({.a = kept, .b = z_, .c = direction_.gradient, .op_a = Op::transpose, .accumulate = true});
    } else {
        matmul({.a = kept, .b = projected, .c = whole_, .op_a = Op::transpose, .accumulate = true});
    }
    if (following_) {
        matmul({.a = kept, .b = direction_.value, .c = z_});
        matmul({.a = projected, .b = z_, .c = image_, .op_a = Op::transpose, .accumulate = true});
    }
    matmul({.a = d_y, .b = linear.weight(), .c = d_x, .accumulate = write == Write::accumulate});
}

Cost ProjectedAdapter::cost(const Linear& linear) const {
    const double r = static_cast<double>(basis_.dim(1)), m = static_cast<double>(linear.out().size),
                 n = static_cast<double>(linear.in().size), projection = 2 * r * (m + n), product = 2 * m * n;
    return {.forward = product,
            .backward = product + (1 + followed_ - wholes_) * projection + wholes_ * product,
            .step = product * (copies_ * r + wholes_ * (r + static_cast<double>(projected_.size)))};
}

void ProjectedAdapter::absorb(const Linear& linear, double scale, double base) const {
    const FrozenBase& words = linear.base();
    if (words.slice.local == 0) return;
    const std::int64_t r = basis_.dim(1);
    const DType wide = accumulate_type(basis_.dtype());
    const Tensor kept = part_of(scratch_, 0, wide, {r, kept_.padded});
    const std::int64_t second = aligned(static_cast<std::int64_t>(kept.bytes()));
    const Tensor projected = part_of(scratch_, second, wide, {r, projected_.padded});
    const std::int64_t third = second + aligned(static_cast<std::int64_t>(projected.bytes()));
    kernels::transpose(direction_.value, kept);
    kernels::transpose(basis_, projected);
    kernels::add_low_rank(words.local_rows(),
                          {of_inputs() ? projected : kept, of_inputs() ? kept : projected, scale,
                           words.slice.begin},
                          scratch_.rows(third, scratch_.size() - third), base);
}

}  // namespace switchyard
