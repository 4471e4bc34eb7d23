#include "methods/parts/row_norms.hpp"

#include "kernels/dots.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/scaling.hpp"

namespace switchyard {

using kernels::matmul;
using kernels::Op;

RowNorms::RowNorms(const ModelContext& context, const Linear& linear, std::int64_t low_rank) {
    const DType wide = context.accumulate();
    const std::int64_t kept = linear.frozen_slice(context).kept, r = low_rank;
    norms_ = context.arena.take(MemoryClass::workspace, wide, {linear.out().padded});
    weight_norms_ = context.arena.take(MemoryClass::workspace, wide, {kept});
    wide_ = context.arena.shared(wide, {2 * r * kept + r * r});
    copies_ = kept == linear.out().padded ? context.topology.dp_size() : 1;
}

kernels::RowPart RowNorms::kept(const Linear& linear, Tensor factor) {
    const RowSlice& slice = linear.base().slice;
    return {factor, kernels::Rows::range(0, factor.dim(0)), slice.begin, slice.local};
}

RowNorms::Rows RowNorms::rows_through_a(const Linear& linear, LowRankAdapter& pair, double of_w,
                                        double of_product) const {
    const std::int64_t r = pair.low_rank(), local = linear.base().slice.local;
    const Tensor q = wide_.rows(0, r * local).reshape({r, local}),
                 b_kept = wide_.rows(r * local, r * local).reshape({r, local}),
                 a_a = wide_.rows(2 * r * local, r * r).reshape({r, r});
    const Tensor a = pair.a().value;
    matmul({.a = a, .b = linear.base().local_rows().hi, .c = q, .op_b = Op::transpose, .alpha = of_w});
    matmul({.a = a, .b = a, .c = a_a, .op_b = Op::transpose});
    kernels::copy_rows(kept(linear, pair.b().value), kernels::whole_rows(b_kept));
    matmul({.a = a_a, .b = b_kept, .c = q, .alpha = of_product, .accumulate = true});
    return {q, b_kept};
}

void RowNorms::square(const Linear& linear, LowRankAdapter& pair, bool base_changed) {
    const RowSlice& slice = linear.base().slice;
    if (slice.local < norms_.size()) kernels::zero(norms_);
    if (slice.local == 0) return;
    const Tensor of_weight = weight_norms_.rows(0, slice.local), out = norms_.rows(slice.begin, slice.local);
    if (base_changed) kernels::row_squared_norms(linear.base().local_rows(), of_weight);
    kernels::copy(of_weight, out);
    const Rows rows = rows_through_a(linear, pair, 2 * pair.scale(), pair.scale() * pair.scale());
    kernels::add_column_dots(rows.q, rows.b, 1, out);
}

void RowNorms::take_roots() const {
    kernels::square_root(norms_);
}

double RowNorms::cost(const Linear& linear, std::int64_t low_rank) const {
    const double r = static_cast<double>(low_rank), m = static_cast<double>(linear.out().size),
                 n = static_cast<double>(linear.in().size);
    return copies_ * (2 * m * n * r + 2 * r * r * (m + n));
}

void RowSums::add(const ModelContext& context, const Linear& linear) {
    topology_ = &context.topology;
    traffic_ = &context.traffic;
    sharded_ = context.config.parallel.shard_frozen && topology_->dp_size() > 1;
    splits_.push_back(linear.split());
    rows_ += linear.out().padded;
    if (linear.split() == Split::row) cut_rows_ += linear.out().padded;
    memory_ = context.arena.shared(context.accumulate(), {2 * even_rows() + 64 * topology_->world.size()});
}

std::int64_t RowSums::even_rows() const {
    const std::int64_t even = std::int64_t{16} * topology_->dp_size();
    return (rows_ + even - 1) / even * even;
}

void RowSums::run(std::span<const Tensor> vectors, TrafficGroup group) const {
    const bool cut = topology_->tp_size() > 1;
    if (!cut && !sharded_) return;
    const Tensor all = memory_.rows(0, even_rows()),
                 work = memory_.rows(all.size(), memory_.size() - all.size());
    kernels::zero(all.rows(rows_, all.size() - rows_));
    kernels::RowBatch collect, distribute;
    std::int64_t next[] = {0, cut_rows_};  // of rows that are cut over tp, which come first; of others
    for (std::size_t i = 0; i < vectors.size(); ++i) {
        const bool of_row = splits_[i] == Split::row;
        const Tensor own = vectors[i];
        std::int64_t& first = next[of_row ? 0 : 1];
        const Tensor place = all.rows(first, own.size());
        first += own.size();
        if (!of_row && !sharded_) continue;
        const auto as_row = [](Tensor t) { return kernels::whole_rows(t.reshape({1, t.size()})); };
        collect.copy(as_row(own), as_row(place));
        distribute.copy(as_row(place), as_row(own));
    }
    collect.run();
    if (cut) start_all_reduce(topology_->tp, all.rows(0, cut_rows_), work, *traffic_, group).wait();
    if (sharded_) start_all_reduce(topology_->dp, all, work, *traffic_, group).wait();
    distribute.run();
}

void RowSums::plan(Traffic& traffic, TrafficGroup group) const {
    const auto element = static_cast<double>(size_of(memory_.dtype()));
    traffic.add(group, all_reduce_bytes(element * static_cast<double>(cut_rows_), topology_->tp_size()));
    if (sharded_)
        traffic.add(group, all_reduce_bytes(element * static_cast<double>(even_rows()), topology_->dp_size()));
}

void AllRowNorms::add(const ModelContext& context, const Linear& linear, LowRankAdapter& adapter,
                      RowNorms& norms) {
    pairs_.push_back({&linear, &adapter, &norms});
    sums_.add(context, linear);
}

void AllRowNorms::measure() {
    std::vector<Tensor> values;
    for (const Pair& x : pairs_) {
        x.norms->square(*x.linear, *x.adapter, base_changed_);
        values.push_back(x.norms->values());
    }
    base_changed_ = false;
    sums_.run(values, TrafficGroup::values);
    for (const Pair& x : pairs_) x.norms->take_roots();
}

}  // namespace switchyard
