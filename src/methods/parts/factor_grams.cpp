// Replicated factors are multiplied on every rank: their Gram matrices cost less than they would to send.
#include "methods/parts/factor_grams.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "kernels/elementwise.hpp"

namespace switchyard {
namespace {

/// The largest number of elements of a sum over tp. It bounds the work space at large ranks.
constexpr std::int64_t buffer_elements = std::int64_t{1} << 20;

}  // namespace

void FactorGrams::add(const Linear& linear, LowRankAdapter& adapter) {
    internal_check(adapter.layout() == FactorLayout::long_rows, "{}: Gram matrices of factors in slots",
                   linear.name());
    const bool column = linear.split() == Split::column;
    Pair pair;
    pair.cut = column ? &adapter.b() : &adapter.a();
    pair.whole = column ? &adapter.a() : &adapter.b();
    pair.cut_rows = static_cast<double>(pair.cut->shard.global[0]);
    pair.whole_rows = static_cast<double>(pair.whole->shard.global[0]);
    low_rank_ = adapter.low_rank();
    for (const Parameter* factor : {pair.cut, pair.whole})
        longest_ = std::max(longest_, factor->value.dim(0));
    pairs_.push_back(pair);
}

template <class Work>
void FactorGrams::for_sums(const Work& work) const {
    const std::int64_t together = std::max<std::int64_t>(1, buffer_elements / (low_rank_ * low_rank_));
    for (std::int64_t first = 0; first < num_pairs(); first += together)
        work(first, std::min(together, num_pairs() - first));
}

void FactorGrams::allocate(const ModelContext& context) {
    topology_ = &context.topology;
    traffic_ = &context.traffic;
    const std::int64_t square = low_rank_ * low_rank_, ranks = topology_->tp_size();
    grams_ = context.arena.take(MemoryClass::workspace, DType::f64, {num_pairs(), low_rank_, low_rank_});
    wide_ = context.arena.shared(DType::f64, {longest_, low_rank_});
    if (ranks == 1) return;
    std::int64_t most = 0;
    for_sums([&](std::int64_t, std::int64_t count) { most = std::max(most, count); });
    scratch_ = context.arena.take(MemoryClass::workspace, DType::f64, {most * square + 8 * ranks});
}

Parameter& FactorGrams::partner(std::int64_t pair, Which which) const {
    return which == Which::cut ? *pairs_[pair].whole : *pairs_[pair].cut;
}

Tensor FactorGrams::form(Which which) {
    const bool cut = which == Which::cut;
    for (std::int64_t i = 0; i < num_pairs(); ++i) {
        Tensor factor = (cut ? pairs_[i].cut : pairs_[i].whole)->value;
        if (factor.dtype() != DType::f64) {
            const Tensor wide = wide_.rows(0, factor.dim(0));
            kernels::copy(factor, wide);
            factor = wide;
        }
        kernels::matmul({.a = factor,
                         .b = factor,
                         .c = grams_.rows(i, 1).reshape({low_rank_, low_rank_}),
                         .op_a = kernels::Op::transpose});
    }
    if (cut && topology_->tp_size() > 1)
        for_sums([&](std::int64_t first, std::int64_t count) {
            start_all_reduce(topology_->tp, grams_.rows(first, count), scratch_, *traffic_,
                             TrafficGroup::other)
                .wait();
        });
    return grams_;
}

double FactorGrams::bytes() const {
    double sum = 0;
    for_sums([&](std::int64_t, std::int64_t count) {
        sum += all_reduce_bytes(static_cast<double>(count * low_rank_ * low_rank_ * 8), topology_->tp_size());
    });
    return sum;
}

double FactorGrams::operations() const {
    const double r = static_cast<double>(low_rank_), dp = topology_->dp_size(), tp = topology_->tp_size();
    double sum = 0;
    for (const Pair& pair : pairs_) sum += 2 * r * r * dp * (pair.cut_rows + tp * pair.whole_rows);
    return sum;
}

}  // namespace switchyard
