// Both halves of the gate's gradient are partial over tp: either B is cut or its gradient is partial.
#include "methods/parts/gated_adapter.hpp"

#include "kernels/dots.hpp"
#include "kernels/scaling.hpp"

namespace switchyard {

GatedAdapter::GatedAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank,
                           double scale)
    : LowRankAdapter(context, linear, low_rank, scale) {
    const DType wide = context.accumulate();
    gate_.shard = {linear.name() + ".lora_gate", {low_rank}, 0, 0, low_rank, 1, 0};
    gate_.value = context.arena.take(MemoryClass::trainable, wide, {low_rank});
    gate_.gradient = context.arena.take(MemoryClass::gradients, wide, {low_rank});
    gate_.tp_gradient = TpGradient::partial;
}

std::optional<kernels::EffectiveWeight> GatedAdapter::effective_weight() {
    auto effective = LowRankAdapter::effective_weight();
    effective->gate = gate_.value;
    return effective;
}

Cost GatedAdapter::cost(const Linear& linear) const {
    return cost_of_merged(linear, low_rank());
}

void GatedAdapter::close_gradients() {
    kernels::add_row_dots(b().value, b().gradient, 1, gate_.gradient);
    for (Parameter* factor : {&a(), &b()}) kernels::scale_rows(factor->gradient, gate_.value);
}

}  // namespace switchyard
