// The effective weight in accumulate_type.
#include "methods/parts/residual_probe.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"

namespace switchyard {
namespace {
constexpr std::int64_t most_rows = 64;
}

void ResidualProbe::allocate(const ModelContext& context, std::int64_t widest_in, std::int64_t low_rank) {
    topology_ = &context.topology;
    dtype_ = context.accumulate();
    const auto take = [&](std::int64_t size) {
        return context.arena.take(MemoryClass::workspace, dtype_, {size});
    };
    before_ = take(most_rows * widest_in);
    after_ = take(most_rows * widest_in);
    a_ = take(low_rank * widest_in);
    b_ = take(low_rank * most_rows);
}

std::int64_t ResidualProbe::rows(const Linear& linear) const {
    return std::min(most_rows, linear.base().slice.local);
}

Tensor ResidualProbe::effective(Linear& linear, LowRankAdapter& adapter, Tensor flat) {
    const std::int64_t count = rows(linear), n = linear.in().padded, r = adapter.low_rank();
    const Tensor out = flat.view(dtype_, {count, n}), a = a_.view(dtype_, {r, n}),
                 b = b_.view(dtype_, {r, count});
    std::vector<std::int32_t> slots(r);
    std::iota(slots.begin(), slots.end(), 0);
    kernels::load_frozen(linear.base().words.rows(0, count), out);
    largest_stored_ = std::max(largest_stored_, kernels::max_abs(out));
    kernels::copy(adapter.a().value, a);
    kernels::pack(adapter.b().value, {slots.data(), r, linear.base().slice.begin, count}, b);
    kernels::matmul({.a = b,
                     .b = a,
                     .c = out,
                     .op_a = kernels::Op::transpose,
                     .alpha = adapter.scale(),
                     .accumulate = true});
    return out;
}

void ResidualProbe::before(Linear& linear, LowRankAdapter& adapter) {
    largest_stored_ = 0;
    if (rows(linear) > 0) effective(linear, adapter, before_);
}

double ResidualProbe::after(Linear& linear, LowRankAdapter& adapter, std::int64_t terms) {
    double residual = 0, rounding = 0;
    if (rows(linear) > 0) {
        const Tensor now = effective(linear, adapter, after_), then = before_.view(dtype_, now.shape());
        const double largest = std::max(kernels::max_abs(then), std::numeric_limits<double>::min());
        kernels::add(then, now, -1.0);
        const double difference = kernels::max_abs(now);
        residual = difference / largest;
        rounding = difference / std::max(largest, largest_stored_);
    }
    residual = all_reduce_max(topology_->world, residual);
    rounding = all_reduce_max(topology_->world, rounding);
    require<AgreedError>(
        std::isfinite(residual) && std::isfinite(rounding),
        "the effective weight of {} is not finite after the update (the run cannot go on; the last "
        "checkpoint "
        "is good) lower optim.lr or optim.dense_lr, lengthen optim.warmup_steps, or set optim.clip_norm",
        linear.name());
    const double eps =
        dtype_ == DType::f64 ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
    const double limit = 8 * std::sqrt(static_cast<double>(terms)) * eps;
    require<AgreedError>(
        rounding <= limit,
        "the effective weight of {} changed by {:.3g} of the largest value that it is the sum of "
        "(limit {:.3g}: a switch or merge must preserve the function) this is a defect or damaged "
        "memory: resume from the last checkpoint and report it",
        linear.name(), rounding, limit);
    return residual;
}

}  // namespace switchyard
