// With one owner and equal types the masters are the values themselves.
#include "optim/owned_parameter.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

std::int64_t width_of(const Tensor& value) {
    return value.shape().rank() == 2 ? value.dim(1) : 1;
}

}  // namespace

OwnedParameter::OwnedParameter(const ModelContext& context, Parameter& parameter, OwnershipPlan plan)
    : parameter_(&parameter),
      owners_(std::move(plan.owners)),
      width_(width_of(parameter.value)),
      step_per_row_(plan.step_per_row),
      aliased_(owners_.group->size() == 1 && parameter.value.dtype() == context.accumulate()),
      index_(owners_.owner.size(), -1) {
    Arena& arena = context.arena;
    const DType dtype = context.accumulate();
    const std::int64_t capacity = plan.capacity;
    const auto take = [&](DType type, Shape shape) { return arena.take(MemoryClass::moments, type, shape); };
    master_ = aliased_ ? as_matrix(parameter.value) : take(dtype, {capacity, width_});
    m_ = take(dtype, {capacity, width_of(parameter.gradient)});
    v_ = take(dtype, {capacity, width_of(parameter.gradient)});
    step_ = take(DType::i32, {step_per_row_ ? capacity : 1});
    if (step_per_row_) frozen_ = take(DType::i32, {capacity});
    stored_list_ = take(DType::i32, {capacity});
    sorted_list_ = take(DType::i32, {capacity});
    row_of_.resize(capacity);
    for (std::int32_t row = 0; row < static_cast<std::int32_t>(owners_.owner.size()); ++row) {
        if (!mine(row)) continue;
        internal_check(count_ < capacity, "{}: more than {} rows owned", parameter.shard.name, capacity);
        row_of_[count_] = row;
        index_[row] = static_cast<std::int32_t>(count_++);
    }
    if (!arena.measuring()) refresh();
}

std::vector<std::int32_t> OwnedParameter::held_rows() const {
    std::vector<std::int32_t> rows(row_of_.begin(), row_of_.begin() + count_);
    std::sort(rows.begin(), rows.end());
    return rows;
}

void OwnedParameter::refresh() {
    const auto rows = [&](const std::vector<std::int32_t>& list, Tensor memory) {
        bool range = true;
        for (std::int64_t i = 0; i < count_; ++i) range = range && list[i] == list[0] + i;
        if (range) return kernels::Rows::range(count_ == 0 ? 0 : list[0], count_);
        kernels::upload(list.data(), memory.rows(0, count_));
        return kernels::Rows::listed(memory.rows(0, count_));
    };
    stored_rows_ = rows(row_of_, stored_list_);
    sorted_rows_ = rows(held_rows(), sorted_list_);
}

void OwnedParameter::set_owner(std::int32_t row, int owner) {
    const int self = owners_.group->rank();
    const bool had = mine(row), has = owner == self;
    owners_.owner[row] = owner;
    if (had == has) return;
    if (has) {
        internal_check(count_ < static_cast<std::int64_t>(row_of_.size()), "{}: storage for {} rows is full",
                       parameter_->shard.name, row_of_.size());
        row_of_[count_] = row;
        index_[row] = static_cast<std::int32_t>(count_++);
        return;
    }
    const std::int32_t hole = index_[row], last = static_cast<std::int32_t>(--count_);
    if (hole != last) {
        for (const Tensor& t : {master_, m_, v_, step_})
            if (step_per_row_ || &t != &step_) kernels::copy(t.rows(last, 1), t.rows(hole, 1));
        row_of_[hole] = row_of_[last];
        index_[row_of_[hole]] = hole;
    }
    index_[row] = -1;
}

std::int64_t OwnedParameter::reset_moments(const std::vector<std::int32_t>& rows) {
    std::int64_t reset = 0;
    for (std::int32_t row : rows) {
        if (!mine(row)) continue;
        kernels::zero(m(row));
        kernels::zero(v(row));
        kernels::zero(step(row));
        ++reset;
    }
    return reset;
}

void OwnedParameter::set_frozen(const std::vector<int>& frozen) {
    std::vector<std::int32_t> stored(count_, 0);
    for (std::int64_t i = 0; i < count_ && !frozen.empty(); ++i) stored[i] = frozen[row_of_[i]];
    kernels::upload(stored.data(), frozen_.rows(0, count_));
}

void OwnedParameter::masters_from_values() {
    if (aliased_ || count_ == 0) return;
    kernels::copy_rows(kernels::whole_rows(as_matrix(parameter_->value), stored_rows_),
                       kernels::whole_rows(master_.rows(0, count_)));
}

void OwnedParameter::values_from_masters() {
    if (aliased_ || count_ == 0) return;
    kernels::copy_rows(kernels::whole_rows(master_.rows(0, count_)),
                       kernels::whole_rows(as_matrix(parameter_->value), stored_rows_));
}

kernels::RowPart OwnedParameter::owned_gradient() const {
    return kernels::whole_rows(as_matrix(parameter_->gradient), sorted_rows_);
}

kernels::AdamWRows OwnedParameter::adamw_rows(const kernels::AdamWSettings& settings) const {
    return {.master = master_.rows(0, count_),
            .m = m_.rows(0, count_),
            .v = v_.rows(0, count_),
            .step = step_per_row_ ? step_.rows(0, count_) : step_,
            .frozen = step_per_row_ ? frozen_.rows(0, count_) : Tensor{},
            .gradient = as_matrix(parameter_->gradient),
            .value = as_matrix(parameter_->value),
            .rows = stored_rows_,
            .settings = settings};
}

void OwnedParameter::visit_state(StateIo& io, const ModelContext& context) {
    const Shard& shard = parameter_->shard;
    const bool transposed = parameter_->transposed;
    DistributedRows d;
    d.group = owners_.group;
    d.owner = &owners_.owner;
    d.held = held_rows();
    d.global = transposed ? Shape{shard.global[1], shard.global[0]} : shard.global;
    d.row0 = shard.row0;
    d.col0 = shard.col0;
    d.rows = shard.rows;
    d.cols = shard.cols;
    d.width = width_;
    d.transposed = transposed;
    d.replica = shard.replica;
    const auto access = [&](Tensor state) {
        const RowPlace place = [this, state, &d](std::int32_t row) {
            return kernels::RowPart{state, kernels::Rows::range(index_[row], 1), 0, d.cols};
        };
        return RowAccess{state.dtype(), place, place};
    };
    io.rows("/model/" + shard.name, d, access(master_));
    const std::string base = "/optimizer/" + shard.name;
    if (gradient_width() != width_) {  // projected: every column is valid, and none is cut over tp
        d.cols = d.width = gradient_width();
        d.global = transposed ? Shape{d.cols, d.global[1]} : Shape{d.global[0], d.cols};
        d.col0 = 0;
    }
    io.rows(base + "/m", d, access(m_));
    io.rows(base + "/v", d, access(v_));

    if (!step_per_row_) {
        std::int32_t common = 0;
        if (io.saving()) kernels::download(step_, &common);
        std::vector<std::int64_t> table{common};
        io.integers(base + "/step", table, context.topology.world.rank());
        common = static_cast<std::int32_t>(table[0]);
        if (io.loading()) kernels::upload(&common, step_);
        return;
    }
    // A tensor of one counter a slot: the columns over tp hold the same, so the first tp rank of a split
    // factor writes.
    d.global = {shard.global[0]};
    d.cols = d.width = 1;
    d.col0 = 0;
    d.transposed = false;
    if (parameter_->tp_gradient == TpGradient::own) d.replica = context.tp_rank();
    io.rows(base + "/step", d, access(step_.reshape({step_.size(), 1})));
    if (io.loading()) refresh();
}

}  // namespace switchyard
