// Effective weights are computed in accumulate_type.
#include "methods/parts/residual_probe.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "kernels/reductions.hpp"

namespace switchyard {
namespace {
constexpr std::int64_t most_rows = 64;
}

void ResidualProbe::allocate(const ModelContext& context, kernels::StepScalars& scalars,
                             std::int64_t widest_in, std::int64_t low_rank) {
    traffic_ = &context.traffic;
    dtype_ = context.accumulate();
    const auto take = [&](std::int64_t size) {
        return context.arena.take(MemoryClass::workspace, dtype_, {size});
    };
    before_ = take(most_rows * widest_in);
    after_ = take(most_rows * widest_in);
    a_ = take(low_rank * widest_in);
    b_ = take(low_rank * most_rows);
    numbers_ = context.arena.take(MemoryClass::workspace, DType::f64, {4});
    slot_ = scalars.take(2);
    ratios_ = scalars.slots(slot_, 2);
    of_ranks_ = RankValues(context.arena, context.topology.world, 2);
}

std::int64_t ResidualProbe::rows(const Linear& linear) const {
    return std::min(most_rows, linear.base().slice.local);
}

Tensor ResidualProbe::effective(const Linear& linear, Tensor flat, Tensor largest_stored) {
    const FrozenBase& base = linear.base();
    const kernels::EffectiveWeight effective =
        linear.adapter()->effective_weight().value().from_row(base.slice.begin);
    const kernels::LowRankFactors& factors = effective.factors;
    const std::int64_t count = rows(linear), n = linear.in().padded, r = factors.a.dim(0);
    const Tensor out = flat.view(dtype_, {count, n}), a = a_.view(dtype_, {r, n}),
                 b = b_.view(dtype_, {r, count});
    kernels::load_frozen(base.words.rows(0, count), out);
    kernels::max_abs(out, largest_stored);
    kernels::RowBatch widened;
    widened.copy(kernels::whole_rows(factors.a), kernels::whole_rows(a));
    widened.copy({factors.b_transposed, kernels::Rows::range(0, r), factors.row0, count},
                 kernels::whole_rows(b));
    widened.run();
    if (!effective.plain()) {
        kernels::EffectiveWeight wide = effective;
        wide.factors = {a, b, factors.scale};
        if (!wide.row_scale.empty()) wide.row_scale = effective.row_scale.rows(factors.row0, count);
        kernels::form_in_order(out, wide);
        return out;
    }
    kernels::matmul({.a = b,
                     .b = a,
                     .c = out,
                     .op_a = kernels::Op::transpose,
                     .alpha = factors.scale,
                     .accumulate = true});
    return out;
}

void ResidualProbe::before(const Linear& linear) {
    if (rows(linear) == 0) return kernels::zero(numbers_);
    const Tensor then = effective(linear, before_, numbers_.rows(2, 1));
    kernels::max_abs(then, numbers_.rows(0, 1));
}

void ResidualProbe::after(const Linear& linear) {
    if (rows(linear) > 0) {
        const Tensor now = effective(linear, after_, numbers_.rows(3, 1));
        kernels::add(before_.view(dtype_, now.shape()), now, -1.0);
        kernels::max_abs(now, numbers_.rows(1, 1));
    }
    kernels::change_ratios(numbers_, ratios_);
    of_ranks_.combine(ratios_, kernels::Combine::max, *traffic_);
}

double ResidualProbe::judge(std::span<const double> scalars, const Linear& linear, std::int64_t terms) const {
    const double residual = scalars[slot_], rounding = scalars[slot_ + 1];
    require<NotFinite>(std::isfinite(residual) && std::isfinite(rounding),
                       "the effective weight of {} is not finite after the update", linear.name());
    const double eps =
        dtype_ == DType::f64 ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
    const double limit = 8 * std::sqrt(static_cast<double>(terms)) * eps;
    require<AgreedError>(
        rounding <= limit,
        "the effective weight of {} changed by {:.3g} of the largest value that it is the sum of "
        "(limit {:.3g}: a switch or merge must preserve the function); this is a defect or damaged "
        "memory: resume from the last checkpoint and report it",
        linear.name(), rounding, limit);
    return residual;
}

}  // namespace switchyard
