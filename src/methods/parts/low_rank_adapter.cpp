// The pair of one linear, and the pairs of a group.
#include "methods/parts/low_rank_adapter.hpp"

#include "kernels/elementwise.hpp"

namespace switchyard {
namespace {

Parameter make_factor(const std::string& name, const Extent& extent, bool split, Tensor value,
                      Tensor gradient) {
    const std::int64_t low_rank = value.dim(0);
    Parameter p;
    p.shard = {name, {low_rank, extent.size}, 0, extent.begin, low_rank, extent.count, 0};
    p.value = value;
    p.gradient = gradient;
    p.tp_gradient = split ? TpGradient::own : TpGradient::partial;
    return p;
}

Tensor take_values(const ModelContext& context, std::int64_t slots, const Extent& extent) {
    return context.arena.take(MemoryClass::trainable, context.dtype, {slots, extent.padded});
}

Tensor take_gradients(const ModelContext& context, std::int64_t slots, const Extent& extent) {
    return context.arena.take(MemoryClass::gradients, context.accumulate(), {slots, extent.padded});
}

/// dY' x of a linear, if the strategy needs it.
Tensor take_weight_gradient(const ModelContext& context, const Linear& linear, Strategy strategy) {
    if (strategy != Strategy::weight_gradient) return {};
    return context.arena.take(MemoryClass::gradients, context.accumulate(),
                              {linear.out().padded, linear.in().padded});
}

/// Memory for a factor in accumulate type, or the factor itself.
Tensor in_accumulate_type(const ModelContext& context, Tensor factor) {
    if (factor.dtype() == context.accumulate()) return factor;
    return context.arena.shared(context.accumulate(), factor.shape());
}

}  // namespace

LowRankAdapter::LowRankAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank,
                               double scale)
    : LowRankAdapter(context, linear, take_values(context, low_rank, linear.in()),
                     take_gradients(context, low_rank, linear.in()), scale,
                     strategy_of(context, {&linear, 1})) {}

LowRankAdapter::LowRankAdapter(const ModelContext& context, const Linear& linear, Tensor a, Tensor d_a,
                               double scale, Strategy strategy)
    : scale_(scale),
      strategy_(strategy),
      replicas_(context.topology.dp_size()),
      a_(make_factor(linear.name() + ".lora_A", linear.in(), linear.split() == Split::row, a, d_a)),
      b_(make_factor(linear.name() + ".lora_B", linear.out(), linear.split() == Split::column,
                     take_values(context, a.dim(0), linear.out()),
                     take_gradients(context, a.dim(0), linear.out()))),
      weight_gradient_(take_weight_gradient(context, linear, strategy)),
      products_(context, a, d_a, {{b_.value, b_.gradient, weight_gradient_, scale}}) {
    b_.transposed = true;
    const std::int64_t rows = linear.frozen_slice(context).kept, in = linear.in().padded;
    const auto bytes = static_cast<std::int64_t>(kernels::frozen_scratch_bytes(rows, in, context.dtype));
    merge_scratch_ = context.arena.shared(DType::i16, {(bytes + 1) / 2});
    full_precision_ = context.arena.shared(context.accumulate(), {rows, in});
    if (weight_gradient_.empty()) return;
    wide_a_ = in_accumulate_type(context, a_.value);
    wide_b_ = in_accumulate_type(context, b_.value);
}

SharedPairs make_shared_pairs(const ModelContext& context, std::span<const Linear> linears,
                              std::int64_t low_rank, double scale) {
    const auto count = static_cast<std::int64_t>(linears.size());
    const Extent& in = linears.front().in();
    const Tensor a = take_values(context, count * low_rank, in),
                 d_a = take_gradients(context, count * low_rank, in);
    const Strategy strategy = strategy_of(context, linears);
    SharedPairs result;
    std::vector<LowRankProducts::Output> outputs;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t first = i * low_rank;
        auto pair = std::make_unique<LowRankAdapter>(context, linears[i], a.rows(first, low_rank),
                                                     d_a.rows(first, low_rank), scale, strategy);
        outputs.push_back({pair->b().value, pair->b().gradient, pair->weight_gradient(), scale});
        result.pairs.push_back(std::move(pair));
    }
    result.products = std::make_unique<LowRankProducts>(context, a, d_a, std::move(outputs));
    return result;
}

void LowRankAdapter::forward(const Linear& linear, Tensor x, Tensor y) {
    products_.forward({&linear, 1}, x, {&y, 1});
}

void LowRankAdapter::backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    products_.backward({&linear, 1}, x, {&d_y, 1}, d_x, write);
}

Cost LowRankAdapter::cost(const Linear& linear) const {
    return cost_of(strategy_, static_cast<double>(linear.out().size), static_cast<double>(linear.in().size),
                   static_cast<double>(low_rank()), replicas_);
}

void LowRankAdapter::gradients_from_weight() {
    if (weight_gradient_.empty()) return;
    const Tensor& q = weight_gradient_;
    if (b_.value.dtype() != wide_b_.dtype()) kernels::copy(b_.value, wide_b_);
    kernels::matmul({.a = wide_b_, .b = q, .c = a_.gradient, .alpha = scale_, .accumulate = true});
    if (a_.value.dtype() != wide_a_.dtype()) kernels::copy(a_.value, wide_a_);
    kernels::matmul({.a = wide_a_,
                     .b = q,
                     .c = b_.gradient,
                     .op_b = kernels::Op::transpose,
                     .alpha = scale_,
                     .accumulate = true});
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
