// The pair of one linear, and the pairs of a group.
#include "methods/parts/low_rank_adapter.hpp"

#include "kernels/elementwise.hpp"
#include "methods/parts/places.hpp"

namespace switchyard {
namespace {

Parameter make_factor(const std::string& name, const Extent& extent, bool split, Tensor value,
                      Tensor gradient, FactorLayout layout) {
    Parameter p;
    if (layout == FactorLayout::slots) {
        const std::int64_t low_rank = value.dim(0);
        p.shard = {name, {low_rank, extent.size}, 0, extent.begin, low_rank, extent.count, 0};
    } else {
        const std::int64_t low_rank = value.dim(1);
        p.shard = {name, {extent.size, low_rank}, extent.begin, 0, extent.count, low_rank, 0};
    }
    p.value = value;
    p.gradient = gradient;
    p.tp_gradient = split ? TpGradient::own : TpGradient::partial;
    return p;
}

Shape shape_of(std::int64_t slots, const Extent& extent, FactorLayout layout) {
    return layout == FactorLayout::slots ? Shape{slots, extent.padded} : Shape{extent.padded, slots};
}

Tensor take_values(const ModelContext& context, std::int64_t slots, const Extent& extent,
                   FactorLayout layout = FactorLayout::slots) {
    return context.arena.take(MemoryClass::trainable, context.dtype, shape_of(slots, extent, layout));
}

Tensor take_gradients(const ModelContext& context, std::int64_t slots, const Extent& extent,
                      FactorLayout layout = FactorLayout::slots) {
    return context.arena.take(MemoryClass::gradients, context.accumulate(), shape_of(slots, extent, layout));
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

LowRankAdapter::Factors LowRankAdapter::take_factors(const ModelContext& context, const Linear& linear,
                                                     std::int64_t low_rank, FactorLayout layout) {
    Factors f;
    f.a = take_values(context, low_rank, linear.in(), layout);
    f.d_a = take_gradients(context, low_rank, linear.in(), layout);
    f.b = take_values(context, low_rank, linear.out(), layout);
    f.d_b = take_gradients(context, low_rank, linear.out(), layout);
    return f;
}

LowRankAdapter::LowRankAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank,
                               double scale, FactorLayout layout)
    : LowRankAdapter(context, linear, take_factors(context, linear, low_rank, layout), scale,
                     strategy_of(context, {&linear, 1}), layout) {}

LowRankAdapter::LowRankAdapter(const ModelContext& context, const Linear& linear, Tensor a, Tensor d_a,
                               double scale, Strategy strategy)
    : LowRankAdapter(context, linear,
                     {a, d_a, take_values(context, a.dim(0), linear.out()),
                      take_gradients(context, a.dim(0), linear.out())},
                     scale, strategy, FactorLayout::slots) {}

LowRankAdapter::LowRankAdapter(const ModelContext& context, const Linear& linear, const Factors& f,
                               double scale, Strategy strategy, FactorLayout layout)
    : scale_(scale),
      strategy_(strategy),
      layout_(layout),
      low_rank_(f.a.dim(layout == FactorLayout::slots ? 0 : 1)),
      replicas_(context.topology.dp_size()),
      a_(make_factor(linear.name() + ".lora_A", linear.in(), linear.split() == Split::row, f.a, f.d_a,
                     layout)),
      b_(make_factor(linear.name() + ".lora_B", linear.out(), linear.split() == Split::column, f.b, f.d_b,
                     layout)),
      weight_gradient_(take_weight_gradient(context, linear, strategy)),
      measuring_(context.arena.measuring()) {
    if (layout == FactorLayout::slots)
        products_ = std::make_unique<LowRankProducts>(
            context, f.a, f.d_a, std::vector<LowRankProducts::Output>{{f.b, f.d_b, weight_gradient_, scale}});
    else
        products_ = std::make_unique<LongRowProducts>(
            context, LongRowProducts::Pair{f.a, f.d_a, f.b, f.d_b, weight_gradient_, scale});
    (layout == FactorLayout::slots ? b_ : a_).transposed = true;
    take_scratch(context, linear);
    if (weight_gradient_.empty()) return;
    wide_a_ = in_accumulate_type(context, a_.value);
    wide_b_ = in_accumulate_type(context, b_.value);
}

void LowRankAdapter::take_scratch(const ModelContext& context, const Linear& linear) {
    const std::int64_t rows = linear.frozen_slice(context).kept, in = linear.in().padded;
    const auto bytes = static_cast<std::int64_t>(kernels::frozen_scratch_bytes(rows, in, context.dtype));
    if (layout_ == FactorLayout::slots) {
        merge_scratch_ = context.arena.shared(DType::i16, {(bytes + 1) / 2});
        full_precision_ = context.arena.shared(context.accumulate(), {rows, in});
        return;
    }
    const std::int64_t wide = rows * in * static_cast<std::int64_t>(size_of(context.accumulate()));
    take_shared(context.arena, [&](Places& places) {
        slots_a_ = places.take(context.dtype, {low_rank_, in});
        slots_b_ = places.take(context.dtype, {low_rank_, linear.out().padded});
        const Tensor either = places.take(DType::u8, {std::max(bytes, wide)});
        merge_scratch_ = either.rows(0, bytes);
        full_precision_ = either.rows(0, wide).view(context.accumulate(), {rows, in});
    });
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
    products_->forward({&linear, 1}, x, {&y, 1});
}

void LowRankAdapter::backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    products_->backward({&linear, 1}, x, {&d_y, 1}, d_x, write);
}

Cost LowRankAdapter::cost(const Linear& linear) const {
    return cost_of(strategy_, static_cast<double>(linear.out().size), static_cast<double>(linear.in().size),
                   static_cast<double>(low_rank()), replicas_);
}

void LowRankAdapter::gradients_from_weight() {
    if (weight_gradient_.empty()) return;
    const Tensor& q = weight_gradient_;
    const bool slots = layout_ == FactorLayout::slots;
    using kernels::Op;
    if (b_.value.dtype() != wide_b_.dtype()) kernels::copy(b_.value, wide_b_);
    kernels::matmul({.a = slots ? wide_b_ : q,
                     .b = slots ? q : wide_b_,
                     .c = a_.gradient,
                     .op_a = slots ? Op::none : Op::transpose,
                     .alpha = scale_,
                     .accumulate = true});
    if (a_.value.dtype() != wide_a_.dtype()) kernels::copy(a_.value, wide_a_);
    kernels::matmul({.a = slots ? wide_a_ : q,
                     .b = slots ? q : wide_a_,
                     .c = b_.gradient,
                     .op_b = slots ? Op::transpose : Op::none,
                     .alpha = scale_,
                     .accumulate = true});
}

void LowRankAdapter::fill_slots(Parameter& factor, const std::function<void(Tensor slots)>& fill) {
    if (layout_ == FactorLayout::slots) return fill(factor.value);
    const Tensor slots = &factor == &a_ ? slots_a_ : slots_b_;
    fill(slots);
    kernels::transpose(slots, factor.value);
}

std::optional<kernels::EffectiveWeight> LowRankAdapter::effective_weight() {
    if (layout_ == FactorLayout::slots) return kernels::EffectiveWeight{{a_.value, b_.value, scale_}};
    if (!measuring_) {
        kernels::transpose(a_.value, slots_a_);
        kernels::transpose(b_.value, slots_b_);
    }
    return kernels::EffectiveWeight{{slots_a_, slots_b_, scale_}};
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
    kernels::EffectiveWeight less = effective_weight()->from_row(base.slice.begin);
    less.factors.scale = -scale_;
    kernels::form_in_order(value, less);
    kernels::store_frozen(value, base.local_rows());
}

}  // namespace switchyard
