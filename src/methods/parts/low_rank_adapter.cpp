// Both ways to compute the low-rank linear. s multiplies products, never stored factors.
#include "methods/parts/low_rank_adapter.hpp"

#include "kernels/matmul.hpp"

namespace switchyard {

using kernels::matmul;
using kernels::Op;

namespace {

Parameter make_factor(const ModelContext& context, const std::string& name, std::int64_t low_rank,
                      const Extent& extent, bool split) {
    Parameter p;
    p.shard = {name, {low_rank, extent.size}, 0, extent.begin, low_rank, extent.count, 0};
    p.value = context.arena.take(MemoryClass::trainable, context.dtype, {low_rank, extent.padded});
    p.gradient = context.arena.take(MemoryClass::gradients, context.accumulate(), {low_rank, extent.padded});
    p.tp_gradient = split ? TpGradient::own : TpGradient::partial;
    return p;
}

}  // namespace

bool merging_pays(std::int64_t m, std::int64_t n, std::int64_t tokens_per_step) {
    return tokens_per_step * (m + n) > m * n;
}

LowRankAdapter::LowRankAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank,
                               double scale)
    : scale_(scale),
      merged_(merging_pays(linear.out().padded, linear.in().padded,
                           context.config.data.global_batch / context.topology.dp_size() * context.seq_len)),
      a_(make_factor(context, linear.name() + ".lora_A", low_rank, linear.in(),
                     linear.split() == Split::row)),
      b_(make_factor(context, linear.name() + ".lora_B", low_rank, linear.out(),
                     linear.split() == Split::column)) {
    b_.transposed = true;
    const std::int64_t rows = linear.frozen_slice(context).kept, in = linear.in().padded;
    z_ = context.arena.shared(context.dtype, {context.tokens(), low_rank});
    const auto bytes = static_cast<std::int64_t>(kernels::frozen_scratch_bytes(rows, in, context.dtype));
    merge_scratch_ = context.arena.shared(DType::i16, {(bytes + 1) / 2});
    full_precision_ = context.arena.shared(context.accumulate(), {rows, in});
}

void LowRankAdapter::forward(const Linear& linear, Tensor x, Tensor y) {
    matmul({.a = x, .b = linear.weight(), .c = y, .op_b = Op::transpose});
    if (merged()) return;
    matmul({.a = x, .b = a_.value, .c = z_, .op_b = Op::transpose});
    matmul({.a = z_, .b = b_.value, .c = y, .alpha = scale_, .accumulate = true});
}

void LowRankAdapter::backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    matmul({.a = d_y, .b = linear.weight(), .c = d_x, .accumulate = write == Write::accumulate});
    // Neighbouring products share their large operand, d_y or x, while it is still in a cache.
    matmul({.a = d_y, .b = b_.value, .c = z_, .op_b = Op::transpose, .alpha = scale_});
    matmul({.a = z_, .b = x, .c = a_.gradient, .op_a = Op::transpose, .accumulate = true});
    if (!merged()) matmul({.a = z_, .b = a_.value, .c = d_x, .accumulate = true});
    matmul({.a = x, .b = a_.value, .c = z_, .op_b = Op::transpose});
    matmul({.a = z_, .b = d_y, .c = b_.gradient, .op_a = Op::transpose, .alpha = scale_, .accumulate = true});
}

Cost LowRankAdapter::cost(const Linear& linear) const {
    const double r = static_cast<double>(low_rank()), m = static_cast<double>(linear.out().size),
                 n = static_cast<double>(linear.in().size), factors = r * (m + n);
    // Backward has x A' and dY B (2 * factors together) and both gradients (2 more), merged or not. Unmerged,
    // y and d_x need one more product with B and A each, and forward computes x A' itself.
    if (merged()) return {.forward = 2 * m * n, .backward = 2 * m * n + 4 * factors, .merge = 2 * m * n * r};
    return {.forward = 2 * m * n + 2 * factors, .backward = 2 * m * n + 4 * factors + 2 * r * n};
}

std::optional<kernels::EffectiveWeight> LowRankAdapter::effective_weight() {
    return kernels::EffectiveWeight{{a_.value, b_.value, scale_}};
}

void LowRankAdapter::merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out) {
    kernels::merge(base_rows, effective_weight()->from_row(row0), out, merge_scratch_);
}

void LowRankAdapter::subtract_from_base(Linear& linear) {
    const FrozenBase& base = linear.base();
    const std::int64_t count = base.slice.local;
    if (count == 0) return;
    const Tensor value = full_precision_.rows(0, count);
    kernels::load_frozen(base.local_rows(), value);
    kernels::form_in_order(value, {{a_.value, b_.value, -scale_, base.slice.begin}});
    kernels::store_frozen(value, base.local_rows());
}

}  // namespace switchyard
