#include "methods/loft/factor_move.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "kernels/cholesky.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "kernels/pair_moments.hpp"
#include "kernels/scaled_descent.hpp"
#include "methods/parts/places.hpp"

namespace switchyard {

using kernels::matmul;
using kernels::Op;

namespace {

constexpr std::int64_t chunk_rows = 64;

}  // namespace

FactorMove::FactorMove(const ModelContext& context, const Parameter& factor, const Parameter& partner,
                       std::int64_t owned_rows)
    : factor_(&factor),
      partner_(&partner),
      tp_(&context.topology.tp),
      traffic_(&context.traffic),
      parts_(partner.tp_gradient == TpGradient::own ? context.topology.tp_size() : 1) {
    const std::int64_t local = partner.value.dim(0), r = partner.value.dim(1), k = parts_ * local,
                       chunk = std::min(owned_rows, chunk_rows);
    const DType wide = context.accumulate();
    take_shared(context.arena, [&](Places& places) {
        gathered_ = places.take(context.dtype, {parts_ > 1 ? parts_ : 0, local, r});
        wide_ = places.take(wide, {k, r});
        pairs_ = places.take(wide, {k, kernels::num_pairs(r)});
        first_ = places.take(wide, {chunk, k});
        second_ = places.take(wide, {chunk, k});
        before_ = places.take(DType::f64, {owned_rows, r});
        after_ = places.take(DType::f64, {owned_rows, r});
    });
}

Tensor FactorMove::whole_partner() const {
    Tensor all = partner_->value;
    if (parts_ > 1) {
        start_all_gather(*tp_, all, gathered_, *traffic_, TrafficGroup::other).wait();
        all = gathered_.reshape(wide_.shape());
    }
    if (all.dtype() == wide_.dtype()) return all;
    kernels::copy(all, wide_);
    return wide_;
}

void FactorMove::run(const Step& step, Tensor clip, Tensor overlap) const {
    const kernels::AdamWRows& own = step.own;
    const std::int64_t rows = own.rows.count;
    const Tensor partner = whole_partner();
    if (rows == 0) return kernels::zero(overlap);
    internal_check(own.rows.list.empty(), "{}: the owned rows are not a range", factor_->shard.name);
    const Tensor value = own.value.rows(own.rows.first, rows),
                 moves = own.gradient.rows(own.rows.first, rows);  // D Q, then D Q S
    kernels::copy(value, before_);
    kernels::pair_products(partner, pairs_);
    for (std::int64_t begin = 0; begin < rows; begin += chunk_rows) {
        const std::int64_t some = std::min(chunk_rows, rows - begin);
        const Tensor first = first_.rows(0, some), second = second_.rows(0, some);
        matmul({.a = own.m.rows(begin, some), .b = partner, .c = first, .op_b = Op::transpose});
        matmul({.a = own.v.rows(begin, some), .b = pairs_, .c = second, .op_b = Op::transpose});
        kernels::pair_direction(first, second, step.corrections, step.eps);
        matmul({.a = first, .b = partner, .c = moves.rows(begin, some)});
    }
    const kernels::DividedRows divided{step.divisor, kernels::whole_rows(moves)};
    kernels::solve_rows({&divided, 1});
    const kernels::ScaledRows descent{.master = own.master,
                                      .gradient = own.gradient,
                                      .value = own.value,
                                      .rows = own.rows,
                                      .factor = step.one,
                                      .lr = own.settings.lr,
                                      .weight_decay = own.settings.weight_decay};
    kernels::scaled_descent({&descent, 1}, clip);
    kernels::copy(value, after_);
    matmul({.a = before_, .b = after_, .c = overlap, .op_a = Op::transpose});
}

double FactorMove::bytes() const {
    return all_gather_bytes(static_cast<double>(partner_->value.bytes()) * parts_, parts_);
}

}  // namespace switchyard
