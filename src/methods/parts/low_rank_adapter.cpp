// Both evaluations of the low-rank linear; s multiplies products, never stored factors.
#include "methods/parts/low_rank_adapter.hpp"

#include <algorithm>

#include "kernels/matmul.hpp"
#include "kernels/rows.hpp"

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
    p.factor = true;
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
    if (rows < linear.out().padded)
        b_slice_ = context.arena.take(MemoryClass::workspace, context.dtype, {low_rank, rows});
}

void LowRankAdapter::forward(const Linear& linear, Tensor x, Tensor y) {
    matmul({.a = x, .b = linear.weight(), .c = y, .op_b = Op::transpose});
    if (merged_) return;
    matmul({.a = x, .b = a_.value, .c = z_, .op_b = Op::transpose});
    matmul({.a = z_, .b = b_.value, .c = y, .alpha = scale_, .accumulate = true});
}

void LowRankAdapter::backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    matmul({.a = d_y, .b = linear.weight(), .c = d_x, .accumulate = write == Write::accumulate});
    // Neighbours share their large operand, d_y or x, while a cache still holds it.
    matmul({.a = d_y, .b = b_.value, .c = z_, .op_b = Op::transpose, .alpha = scale_});
    matmul({.a = z_, .b = x, .c = a_.gradient, .op_a = Op::transpose, .accumulate = true});
    if (!merged_) matmul({.a = z_, .b = a_.value, .c = d_x, .accumulate = true});
    matmul({.a = x, .b = a_.value, .c = z_, .op_b = Op::transpose});
    matmul({.a = z_, .b = d_y, .c = b_.gradient, .op_a = Op::transpose, .alpha = scale_, .accumulate = true});
}

Tensor LowRankAdapter::b_columns(std::int64_t row0, std::int64_t count) {
    if (count == b_.value.dim(1)) return b_.value;
    const Tensor slice = b_slice_.view(b_slice_.dtype(), {low_rank(), count});
    kernels::copy_rows({b_.value, kernels::Rows::range(0, low_rank()), row0, count},
                       kernels::whole_rows(slice));
    return slice;
}

void LowRankAdapter::merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out) {
    kernels::merge(base_rows, {a_.value, b_columns(row0, base_rows.hi.dim(0)), scale_}, out, merge_scratch_);
}

void LowRankAdapter::subtract_from_base(Linear& linear) {
    const FrozenBase& base = linear.base();
    const std::int64_t count = base.slice.local;
    if (count == 0) return;
    const Tensor value = full_precision_.rows(0, count);
    kernels::load_frozen(base.local_rows(), value);
    kernels::subtract_low_rank_in_order(value, {a_.value, b_columns(base.slice.begin, count), scale_});
    kernels::store_frozen(value, base.local_rows());
}

}  // namespace switchyard
