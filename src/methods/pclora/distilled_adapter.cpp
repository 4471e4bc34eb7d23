// `differences` holds the shadow's output first, then the gradient of the loss, then that of the objective.
#include "methods/pclora/distilled_adapter.hpp"

#include "kernels/dots.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/outputs.hpp"

namespace switchyard {

DistilledAdapter::DistilledAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank,
                                   double scale, bool bias, double base_share)
    : LowRankAdapter(context, linear, low_rank, scale),
      base_share_(base_share),
      products_(context, a().value, a().gradient, {{.b = b().value, .d_b = b().gradient, .scale = scale}}) {
    if (!bias) return;
    // A row-parallel linear has a whole output on every tp rank, and so is the bias.
    const bool whole = linear.split() == Split::row;
    const Extent& out = linear.out();
    bias_.shard = {linear.name() + ".lora_bias", {out.size}, out.begin, 0, out.count, 1,
                   whole ? context.tp_rank() : 0};
    bias_.value = context.arena.take(MemoryClass::trainable, context.accumulate(), {out.padded});
    bias_.gradient = context.arena.take(MemoryClass::gradients, context.accumulate(), {out.padded});
    bias_.tp_gradient = whole ? TpGradient::same : TpGradient::own;
}

std::vector<Parameter*> DistilledAdapter::parameters() {
    if (bias_.value.empty()) return {&a(), &b()};
    return {&a(), &b(), &bias_};
}

std::optional<kernels::EffectiveWeight> DistilledAdapter::effective_weight() {
    auto effective = LowRankAdapter::effective_weight();
    effective->base = base_;
    return effective;
}

Cost DistilledAdapter::cost(const Linear& linear) const {
    Cost cost = cost_of(Strategy::unmerged, static_cast<double>(linear.out().size),
                        static_cast<double>(linear.in().size), static_cast<double>(low_rank()), 1);
    const double base = 2 * static_cast<double>(linear.out().size) * static_cast<double>(linear.in().size) *
                        (1 - base_share_);
    cost.forward -= base;
    cost.backward -= base;
    return cost;
}

void DistilledAdapter::set_base(double base) {
    base_ = base;
    products_.set_base(base);
}

void DistilledAdapter::forward(const Linear& linear, Tensor x, Tensor y) {
    products_.forward({&linear, 1}, x, {&y, 1});
}

void DistilledAdapter::on_shadow_output(const Linear&, Tensor y) {
    kernels::copy(y, loss_.differences);
    shadow_seen_ = true;
}

void DistilledAdapter::on_output(const Linear&, Tensor y) {
    if (!shadow_seen_) {
        if (!bias_.value.empty()) kernels::finish_output({.y = y, .bias = bias_.value});
        return;
    }
    kernels::finish_output({.y = y,
                            .bias = bias_.value,
                            .teacher = loss_.differences,
                            .scale = 2 * loss_.weight,
                            .weight = loss_.counted * loss_.weight,
                            .sum = counted_ ? Tensor{} : sum_});
    shadow_seen_ = false;
    counted_ = true;
}

void DistilledAdapter::backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    Tensor d = d_y;
    if (!loss_.differences.empty()) {
        d = loss_.differences;  // others read d_y too
        kernels::add(d_y, d);
    }
    products_.backward({&linear, 1}, x, {&d, 1}, d_x, write);
    if (!bias_.value.empty()) kernels::add_column_sums(d, 1, bias_.gradient);
}

}  // namespace switchyard
