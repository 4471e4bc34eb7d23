// With one owner and equal types, the values themselves serve as masters.
#include "optim/owned_parameter.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/moment_codes.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

std::int64_t width_of(const Tensor& value) {
    return value.shape().rank() == 2 ? value.dim(1) : 1;
}

bool is_range(const std::vector<std::int32_t>& rows) {
    for (std::size_t i = 1; i < rows.size(); ++i)
        if (rows[i] != rows[i - 1] + 1) return false;
    return true;
}
/// Codes <- that of zero, which is no zero byte.
void clear_codes(Tensor codes, bool has_signs) {
    const std::int64_t width = codes.dim(1), at_once = std::max<std::int64_t>((1 << 20) / width, 1);
    const std::vector<std::uint8_t> zeros(static_cast<std::size_t>(at_once * width),
                                          static_cast<std::uint8_t>(kernels::zero_code(has_signs)));
    for (std::int64_t row = 0; row < codes.dim(0); row += at_once)
        kernels::upload(zeros.data(), codes.rows(row, std::min(at_once, codes.dim(0) - row)));
}
kernels::Rows range_of(const std::vector<std::int32_t>& rows) {
    return kernels::Rows::range(rows.empty() ? 0 : rows[0], static_cast<std::int64_t>(rows.size()));
}

}  // namespace

OwnedParameter::OwnedParameter(const ModelContext& context, Parameter& parameter, OwnershipPlan plan)
    : parameter_(&parameter),
      owners_(std::move(plan.owners)),
      width_(width_of(parameter.value)),
      gradient_width_(width_of(parameter.gradient)),
      m_width_(plan.m_width == OwnershipPlan::as_gradient ? gradient_width_ : plan.m_width),
      v_width_(plan.v_width == OwnershipPlan::as_gradient ? gradient_width_ : plan.v_width),
      m_apart_(plan.m_width != OwnershipPlan::as_gradient),
      v_apart_(plan.v_width != OwnershipPlan::as_gradient),
      step_per_row_(plan.step_per_row),
      has_master_(plan.master),
      aliased_(owners_.group->size() == 1 && parameter.value.dtype() == context.accumulate()),
      most_moving_(plan.most_moving),
      index_(owners_.owner.size(), -1) {
    Arena& arena = context.arena;
    const DType dtype = context.accumulate();
    const std::int64_t capacity = plan.capacity;
    const auto take = [&](DType type, Shape shape) { return arena.take(MemoryClass::moments, type, shape); };
    if (has_master_) master_ = aliased_ ? as_matrix(parameter.value) : take(dtype, {capacity, width_});
    take_moments(context, capacity);
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

std::int64_t OwnedParameter::whole_width(bool apart, std::int64_t width) const {
    return apart || width != width_ ? width : parameter_->shard.global_cols();
}

void OwnedParameter::take_moments(const ModelContext& context, std::int64_t capacity) {
    const OptimConfig& optim = context.config.optim;
    const std::int64_t whole = whole_width(m_apart_, m_width_), width = m_width_;
    coded_ = optim.state_bits == "8" && width > 1 && width == v_width_ &&
             parameter_->shard.global[0] * whole >= optim.min_8bit_size;
    if (coded_ && width < whole) {  // so on all tp ranks, each of which has `width` columns of the row
        whole_column_ = context.tp_rank() * width;
        shares_blocks_ = width % kernels::code_block != 0;
        internal_check(parameter_->shard.cols == 0 || parameter_->shard.col0 == whole_column_,
                       "{}: columns from {} on, not {}", parameter_->shard.name, parameter_->shard.col0,
                       whole_column_);
    }
    for (const auto& [moment, columns] : {std::pair{&m_, m_width_}, {&v_, v_width_}}) {
        const auto take = [&](DType type, std::int64_t number) {
            return context.arena.take(MemoryClass::moments, type, {capacity, number});
        };
        if (columns > 0) moment->values = take(coded_ ? DType::u8 : context.accumulate(), columns);
        if (coded_)
            moment->scales = take(context.accumulate(), kernels::num_code_blocks(whole_column_, columns));
    }
}

std::vector<std::int32_t> OwnedParameter::held_rows() const {
    std::vector<std::int32_t> rows(row_of_.begin(), row_of_.begin() + count_);
    std::sort(rows.begin(), rows.end());
    return rows;
}

void OwnedParameter::refresh() {
    const auto rows = [&](const std::vector<std::int32_t>& list, Tensor memory) {
        if (is_range(list)) return range_of(list);
        kernels::upload(list.data(), memory.rows(0, count_));
        return kernels::Rows::listed(memory.rows(0, count_));
    };
    stored_rows_ = rows({row_of_.begin(), row_of_.begin() + count_}, stored_list_);
    sorted_rows_ = rows(held_rows(), sorted_list_);
}

void OwnedParameter::refresh(kernels::StepLists& lists, kernels::RowBatch& batch) {
    const auto rows = [&](const std::vector<std::int32_t>& list, Tensor memory) {
        if (is_range(list)) return range_of(list);
        const Tensor kept = memory.rows(0, count_);
        batch.copy(kernels::whole_rows(lists.add(list)), kernels::whole_rows(kept));
        return kernels::Rows::listed(kept);
    };
    stored_rows_ = rows({row_of_.begin(), row_of_.begin() + count_}, stored_list_);
    sorted_rows_ = rows(held_rows(), sorted_list_);
}

std::vector<std::int32_t> OwnedParameter::stored(std::span<const std::int32_t> rows) const {
    std::vector<std::int32_t> storage;
    for (const std::int32_t row : rows)
        if (mine(row)) storage.push_back(index_[row]);
    return storage;
}

std::vector<Tensor> OwnedParameter::moments() const {
    std::vector<Tensor> parts;
    for (const Moment* moment : {&m_, &v_})
        for (const Tensor& part : {moment->values, moment->scales})
            if (part.shape().rank() > 0) parts.push_back(part);
    return parts;
}

std::vector<Tensor> OwnedParameter::travelling() const {
    std::vector<Tensor> parts = moments();
    if (step_per_row_) parts.push_back(step_.reshape({step_.dim(0), 1}));
    return parts;
}

OwnedParameter::Gaps OwnedParameter::change_tables(std::span<const std::int32_t> rows,
                                                   std::span<const int> owners) {
    const int self = owners_.group->rank();
    std::vector<std::int32_t> holes, arriving;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const bool had = mine(rows[i]), has = owners[i] == self;
        owners_.owner[rows[i]] = owners[i];
        if (has && !had) arriving.push_back(rows[i]);
        if (!had || has) continue;
        holes.push_back(std::exchange(index_[rows[i]], -1));
        row_of_[holes.back()] = -1;
    }
    // Rows beyond the new end fill the holes before it, so no place is both read and written.
    Gaps gaps;
    const auto kept = static_cast<std::int32_t>(count_ - static_cast<std::int64_t>(holes.size()));
    std::sort(holes.begin(), holes.end());
    auto hole = holes.begin();
    for (std::int32_t last = kept; last < static_cast<std::int32_t>(count_); ++last) {
        if (row_of_[last] < 0) continue;
        gaps.from.push_back(last);
        gaps.to.push_back(*hole);
        row_of_[*hole] = row_of_[last];
        index_[row_of_[last]] = *hole++;
    }
    count_ = kept;
    internal_check(
        count_ + static_cast<std::int64_t>(arriving.size()) <= static_cast<std::int64_t>(row_of_.size()),
        "{}: storage for {} rows is full", parameter_->shard.name, row_of_.size());
    for (const std::int32_t row : arriving) {
        row_of_[count_] = row;
        index_[row] = static_cast<std::int32_t>(count_++);
    }
    return gaps;
}

void OwnedParameter::change_owners(std::span<const std::int32_t> rows, std::span<const int> owners,
                                   kernels::StepLists& lists, kernels::RowBatch& close_gaps) {
    const Gaps gaps = change_tables(rows, owners);
    if (gaps.from.empty()) return;
    const kernels::Rows from = lists.rows(gaps.from), to = lists.rows(gaps.to);
    std::vector<Tensor> state = travelling();
    if (has_master_) state.push_back(master_);
    for (const Tensor& part : state)
        close_gaps.copy(kernels::whole_rows(part, from), kernels::whole_rows(part, to));
}

void OwnedParameter::assign_owners(std::span<const int> owner_of_row) {
    std::vector<std::int32_t> rows(owner_of_row.size());
    std::iota(rows.begin(), rows.end(), 0);
    change_tables(rows, owner_of_row);
    refresh();
}

void OwnedParameter::reset_moments(std::span<const std::int32_t> rows, kernels::StepLists& lists,
                                   kernels::RowBatch& batch) const {
    const std::vector<std::int32_t> storage = stored(rows);
    if (storage.empty()) return;
    const kernels::Rows some = lists.rows(storage);
    for (const Tensor& part : travelling()) batch.zero(kernels::whole_rows(part, some));
    if (!step_per_row_) batch.zero(kernels::whole_rows(step_));
}

std::vector<std::int32_t> OwnedParameter::frozen_in_storage(const std::vector<int>& frozen) const {
    std::vector<std::int32_t> stored(count_, 0);
    for (std::int64_t i = 0; i < count_ && !frozen.empty(); ++i) stored[i] = frozen[row_of_[i]] != 0;
    return stored;
}

void OwnedParameter::set_frozen(const std::vector<int>& frozen) {
    frozen_now_ = frozen_in_storage(frozen);
    kernels::upload(frozen_now_.data(), frozen_.rows(0, count_));
}

void OwnedParameter::set_frozen(const std::vector<int>& frozen, kernels::StepLists& lists,
                                kernels::RowBatch& batch) {
    std::vector<std::int32_t> next = frozen_in_storage(frozen);
    if (next == frozen_now_) return;
    frozen_now_ = std::move(next);
    if (count_ > 0)
        batch.copy(kernels::whole_rows(lists.add(frozen_now_)), kernels::whole_rows(frozen_.rows(0, count_)));
}

void OwnedParameter::masters_from_values() {
    if (aliased_ || !has_master_ || count_ == 0) return;
    kernels::copy_rows(kernels::whole_rows(as_matrix(parameter_->value), stored_rows_),
                       kernels::whole_rows(master_.rows(0, count_)));
}

void OwnedParameter::values_from_masters() {
    if (aliased_ || !has_master_ || count_ == 0) return;
    kernels::copy_rows(kernels::whole_rows(master_.rows(0, count_)),
                       kernels::whole_rows(as_matrix(parameter_->value), stored_rows_));
}

kernels::RowPart OwnedParameter::owned_gradient() const {
    return kernels::whole_rows(as_matrix(parameter_->gradient), sorted_rows_);
}

kernels::AdamWRows OwnedParameter::adamw_rows(const kernels::AdamWSettings& settings) const {
    internal_check(has_master_ && m_width_ == width_ && v_width_ == width_ && gradient_width_ == width_,
                   "{}: AdamW on a master {} and moments of {} and {} columns of {}", parameter_->shard.name,
                   has_master_, m_width_, v_width_, width_);
    return state_rows(settings);
}

kernels::AdamWRows OwnedParameter::state_rows(const kernels::AdamWSettings& settings) const {
    const auto owned = [this](Tensor state) { return state.empty() ? Tensor{} : state.rows(0, count_); };
    return {.master = owned(master_),
            .m = owned(m_.values),
            .v = owned(v_.values),
            .step = step_per_row_ ? step_.rows(0, count_) : step_,
            .frozen = step_per_row_ ? frozen_.rows(0, count_) : Tensor{},
            .gradient = as_matrix(parameter_->gradient),
            .value = as_matrix(parameter_->value),
            .rows = stored_rows_,
            .settings = settings,
            .m_scale = owned(m_.scales),
            .v_scale = owned(v_.scales),
            .whole_column = whole_column_,
            .end_maxima = owned(end_maxima_)};
}

/// The checkpoint's view of the rows of this rank, whose columns are those of the value.
DistributedRows OwnedParameter::held_part() const {
    const Shard& shard = parameter_->shard;
    DistributedRows d;
    d.group = owners_.group;
    d.held = held_rows();
    d.transposed = parameter_->transposed;
    d.global = d.transposed ? Shape{shard.global[1], shard.global[0]} : shard.global;
    d.row0 = shard.row0;
    d.col0 = shard.col0;
    d.rows = shard.rows;
    d.cols = shard.cols;
    d.replica = shard.replica;
    return d;
}

void OwnedParameter::visit_rows(StateIo& io, const std::string& path, const DistributedRows& d, Tensor state,
                                DType stored) const {
    const RowPlace place = [this, state, cols = d.cols](std::int32_t row) {
        return kernels::RowPart{state, kernels::Rows::range(index_[row], 1), 0, cols};
    };
    io.rows(path, d, {stored, place, place});
}

void OwnedParameter::visit_moment(StateIo& io, const std::string& path, const ModelContext& context,
                                  const Moment& moment, std::int64_t width, bool apart) const {
    if (width == 0) return;
    const Shard& shard = parameter_->shard;
    DistributedRows d = held_part();
    const auto global = [&](std::int64_t columns) {
        return d.transposed ? Shape{columns, shard.global[0]} : Shape{shard.global[0], columns};
    };
    if (apart || width != width_) {  // then every column is valid, and none is cut over tp
        d.cols = width;
        d.global = global(width);
        d.col0 = 0;
        // Where the value's columns are cut, all tp ranks hold the same moments.
        if (shard.cols < shard.global_cols()) d.replica = context.tp_rank();
    }
    if (!coded_) return visit_rows(io, path, d, moment.values, context.accumulate());
    if (io.loading() && d.cols < width) clear_codes(moment.values, &moment == &m_);  // padding is in no file
    visit_rows(io, path + "_codes", d, moment.values, DType::u8);
    // Of the ranks that share a block, the one with its first column writes the scale; all read it.
    const auto blocks_before = [](std::int64_t column) {
        return (column + kernels::code_block - 1) / kernels::code_block;
    };
    const std::int64_t end = blocks_before(d.col0 + d.cols), local = whole_column_ / kernels::code_block,
                       begin = io.saving() ? blocks_before(d.col0) : d.col0 / kernels::code_block;
    d.global = global(blocks_before(whole_width(apart, width)));
    d.overlaps = shares_blocks_;
    d.cols = d.cols == 0 ? 0 : end - begin;
    d.col0 = begin;
    const RowPlace place = [this, state = moment.scales, first = begin - local,
                            cols = d.cols](std::int32_t row) {
        return kernels::RowPart{state, kernels::Rows::range(index_[row], 1), first, cols};
    };
    io.rows(path + "_scales", d, {context.accumulate(), place, place});
}

void OwnedParameter::visit_state(StateIo& io, const ModelContext& context) {
    DistributedRows d = held_part();
    const RowPlace master = [this, cols = d.cols](std::int32_t row) { return master_part(row, cols); };
    if (parameter_->stored)
        io.rows("/model/" + parameter_->shard.name, d, {context.accumulate(), master, master});
    const std::string base = "/optimizer/" + parameter_->name_of_moments();
    visit_moment(io, base + "/m", context, m_, m_width_, m_apart_);
    visit_moment(io, base + "/v", context, v_, v_width_, v_apart_);

    if (!step_per_row_) {
        std::int32_t common = 0;
        if (io.saving()) kernels::download(step_, &common);
        std::vector<std::int64_t> table{common};
        io.integers(base + "/step", table, context.topology.world.rank());
        common = static_cast<std::int32_t>(table[0]);
        if (io.loading()) kernels::upload(&common, step_);
        return;
    }
    // A tensor with one counter per slot is the same on all tp ranks of a cut factor, so the first of them
    // writes it.
    d.global = {parameter_->shard.global[0]};
    d.cols = 1;
    d.col0 = 0;
    d.transposed = false;
    if (parameter_->tp_gradient == TpGradient::own) d.replica = context.tp_rank();
    visit_rows(io, base + "/step", d, step_.reshape({step_.size(), 1}), DType::i32);
}

}  // namespace switchyard
