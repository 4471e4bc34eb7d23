#include "methods/parts/magnitude_adapter.hpp"

#include "kernels/dots.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/scaling.hpp"

namespace switchyard {

using kernels::matmul;
using kernels::Op;

namespace {

Tensor take_scaled(const ModelContext& context, const Linear& linear, std::int64_t low_rank) {
    return context.arena.take(MemoryClass::copies, context.dtype, {low_rank, linear.out().padded});
}

}  // namespace

MagnitudeAdapter::MagnitudeAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank,
                                   double scale, bool exact)
    : LowRankAdapter(context, linear, low_rank, scale),
      scaled_b_(take_scaled(context, linear, low_rank)),
      norms_(context, linear, low_rank),
      scaled_products_(context, a().value, a().gradient, {{.b = scaled_b_, .d_b = b().gradient, .scale = scale}}) {
    const Extent& out = linear.out();
    const DType wide = context.accumulate();
    magnitude_.shard = {linear.name() + ".lora_magnitude", {out.size}, out.begin, 0, out.count, 1, 0};
    magnitude_.value = context.arena.take(MemoryClass::trainable, wide, {out.padded});
    magnitude_.gradient = context.arena.take(MemoryClass::gradients, wide, {out.padded});
    magnitude_.tp_gradient = linear.split() == Split::column ? TpGradient::own : TpGradient::partial;
    const std::int64_t kept = linear.frozen_slice(context).kept, r = low_rank;
    row_scale_ = context.arena.take(MemoryClass::workspace, wide, {out.padded});
    if (exact) sums_ = context.arena.take(MemoryClass::workspace, wide, {out.padded});
    y_ = context.arena.shared(context.dtype, {context.tokens(), out.padded});
    narrow_ = context.arena.shared(context.dtype, {2 * r * kept + r * r});
}

std::optional<kernels::EffectiveWeight> MagnitudeAdapter::effective_weight() {
    auto effective = LowRankAdapter::effective_weight();
    effective->row_scale = row_scale_;
    return effective;
}

void MagnitudeAdapter::backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    scaled_products_.backward({&linear, 1}, x, {&d_y, 1}, d_x, write);
    // The output is no longer there: q and k are rotated in place, gate and up hold their gradients.
    matmul({.a = x, .b = linear.weight(), .c = y_, .op_b = Op::transpose});
    kernels::add_column_dots(d_y, y_, 1, magnitude_.gradient);
}

Cost MagnitudeAdapter::cost(const Linear& linear) const {
    const double r = static_cast<double>(low_rank()), m = static_cast<double>(linear.out().size),
                 n = static_cast<double>(linear.in().size);
    // d_x and, for the magnitude, y again; x A', d_y B and both gradients of the factors.
    Cost cost{.forward = 2 * m * n, .backward = 4 * m * n + 4 * r * (m + n), .merge = 2 * m * n * r};
    cost.step = (sums_.empty() ? 1 : 3) * norms_.cost(linear, low_rank());
    return cost;
}

void MagnitudeAdapter::magnitude_from_norms() {
    kernels::copy(norms_.values(), magnitude_.value);
}

void MagnitudeAdapter::form_row_scale() {
    kernels::divide(magnitude_.value, norms_.values(), row_scale_);
    kernels::scale_columns({.from = kernels::whole_rows(b().value),
                            .factors = row_scale_,
                            .to = kernels::whole_rows(scaled_b_)});
}

void MagnitudeAdapter::close_gradients() {
    if (!sums_.empty()) kernels::copy(magnitude_.gradient, sums_);
    const kernels::RowPart d_b = kernels::whole_rows(b().gradient);
    kernels::scale_columns({.from = d_b, .factors = row_scale_, .to = d_b});
    kernels::divide(magnitude_.gradient, magnitude_.value, magnitude_.gradient);
}

void MagnitudeAdapter::add_norm_gradient(const Linear& linear) {
    const RowSlice& slice = linear.base().slice;
    const std::int64_t r = low_rank(), local = slice.local;
    if (local == 0) return;
    for (int power = 0; power < 2; ++power) kernels::divide(sums_, norms_.values(), sums_);
    const Tensor factors = sums_.rows(slice.begin, local);
    // dB = s dV A'
    const RowNorms::Rows rows = norms_.rows_through_a(linear, *this, 1, scale());
    kernels::scale_columns({.from = kernels::whole_rows(rows.q),
                            .factors = factors,
                            .to = RowNorms::kept(linear, b().gradient),
                            .scale = -scale(),
                            .accumulate = true});
    // dA = s B' dV, with s B' diag(factors) as `d`: d W + s (d B) A
    const Tensor d = narrow_.rows(0, r * local).reshape({r, local}),
                 b_kept = narrow_.rows(r * local, r * local).reshape({r, local}),
                 d_b = narrow_.rows(2 * r * local, r * r).reshape({r, r});
    kernels::copy_rows(RowNorms::kept(linear, b().value), kernels::whole_rows(b_kept));
    kernels::scale_columns({.from = kernels::whole_rows(b_kept),
                            .factors = factors,
                            .to = kernels::whole_rows(d),
                            .scale = -scale()});
    matmul({.a = d, .b = linear.base().local_rows().hi, .c = a().gradient, .accumulate = true});
    matmul({.a = d, .b = b_kept, .c = d_b, .op_b = Op::transpose});
    matmul({.a = d_b, .b = a().value, .c = a().gradient, .alpha = scale(), .accumulate = true});
}

}  // namespace switchyard
