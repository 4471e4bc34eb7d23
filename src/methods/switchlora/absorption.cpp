// The differences of several matrices are computed in one call; then each matrix gets its product.
#include "methods/switchlora/absorption.hpp"

#include <algorithm>
#include <vector>

#include "core/error.hpp"
#include "kernels/frozen_weight.hpp"

namespace switchyard {
namespace {

/// Rounds up a number of elements, so that every factor begins at a cache line.
std::int64_t aligned(std::int64_t elements) {
    return (elements + 15) / 16 * 16;
}

}  // namespace

void Absorption::expect(const ModelContext& context, const Linear& linear, std::int64_t at_once) {
    const std::int64_t m = linear.out().padded, n = linear.in().padded;
    const std::int64_t elements = aligned(2 * at_once * m) + aligned(2 * at_once * n);
    largest_ = std::max(largest_, elements);
    together_ += elements;
    scratch_bytes_ = std::max(scratch_bytes_,
                              static_cast<std::int64_t>(kernels::frozen_scratch_bytes(m, n, context.dtype)));
}

void Absorption::allocate(const ModelContext& context) {
    const std::int64_t pays = 4 * kernels::segment_elements();  // more at a time would not stay in the caches
    differences_ = context.arena.take(MemoryClass::workspace, context.accumulate(),
                                      {std::max(largest_, std::min(together_, pays))});
    scratch_ = context.arena.shared(DType::i16, {(scratch_bytes_ + 1) / 2});
}

std::int64_t Absorption::elements(const AbsorbedSwitch& x) const {
    return aligned(2 * x.count * x.linear->in().padded) + aligned(2 * x.count * x.linear->base().slice.local);
}

void Absorption::run(std::span<const AbsorbedSwitch> switches) {
    for (std::size_t first = 0, next = 0; first < switches.size(); first = next) {
        kernels::RowBatch batch;
        std::vector<kernels::LowRankFactors> products;
        std::int64_t used = 0;
        for (; next < switches.size() && used + elements(switches[next]) <= differences_.size(); ++next) {
            const AbsorbedSwitch& x = switches[next];
            const RowSlice& slice = x.linear->base().slice;
            const std::int64_t k = x.count, n = x.linear->in().padded, rows = slice.local;
            const auto take = [&](std::int64_t width) {
                const Tensor taken = differences_.rows(used, 2 * k * width).reshape({2 * k, width});
                used += aligned(2 * k * width);
                return taken;
            };
            const Tensor a = take(n), b = take(rows);
            products.push_back({a, b, x.adapter->scale()});
            if (rows == 0) continue;
            const auto upper = [&](Tensor t) { return kernels::whole_rows(t, kernels::Rows::range(0, k)); };
            const auto lower = [&](Tensor t) { return kernels::whole_rows(t, kernels::Rows::range(k, k)); };
            const auto columns = [&](Tensor factor, const kernels::Rows& some) {
                return kernels::RowPart{factor, some, slice.begin, rows};
            };
            const Tensor factor_a = x.adapter->a().value, factor_b = x.adapter->b().value;
            batch.subtract(kernels::whole_rows(factor_a, x.slots_a), kernels::whole_rows(x.incoming_a),
                           upper(a));
            batch.copy(kernels::whole_rows(factor_a, x.slots_b), lower(a));
            batch.copy(columns(factor_b, x.slots_a), upper(b));
            batch.subtract(columns(factor_b, x.slots_b), columns(x.incoming_b, kernels::Rows::range(0, k)),
                           lower(b));
        }
        internal_check(next > first, "a switch of {} slots needs more work space than expected",
                       switches[first].count);
        batch.run();
        for (std::size_t i = first; i < next; ++i)
            if (switches[i].linear->base().slice.local > 0)
                kernels::add_low_rank(switches[i].linear->base().local_rows(), products[i - first], scratch_);
    }
}

}  // namespace switchyard
