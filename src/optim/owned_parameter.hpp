// OwnedParameter: the optimizer state (master, moments, step counters) of those rows of a parameter that this
// rank owns. Rows may change owner (Optimizer::plan_moves). The storage has a fixed capacity, and its order
// has no meaning.
#pragma once

#include "core/arena.hpp"
#include "io/checkpoint/state_io.hpp"
#include "kernels/adamw.hpp"
#include "kernels/step_memory.hpp"
#include "model/context.hpp"
#include "optim/ownership.hpp"

namespace switchyard {

/// Who owns a parameter's rows at the start, and which state is kept for them.
struct OwnershipPlan {
    RowOwners owners;
    std::int64_t capacity = 0;     // the largest number of rows that this rank may own at a time
    bool step_per_row = false;     // true for slots of a factor; otherwise one step counter serves all rows
    std::int64_t most_moving = 0;  // the largest number of rows that leave or arrive on this rank at a time
    /// If false there is no master: the owners' values themselves are updated and stored.
    bool master = true;
    /// Number of columns of the moments; 0: none. A method must update parameters itself if their moments do
    /// not have the width of gradient and value. With a width of the method's own, tp ranks that hold other
    /// columns of the same rows must hold the same moments.
    static constexpr std::int64_t as_gradient = -1;
    std::int64_t m_width = as_gradient, v_width = as_gradient;
};

/// A moment of the owned rows: (storage, width), numbers of accumulate type or codes with their scales
/// (kernels/moment_codes.hpp). Empty: the moment is not kept.
struct Moment {
    Tensor values, scales;
};

class OwnedParameter {
  public:
    OwnedParameter(const ModelContext&, Parameter&, OwnershipPlan);

    Parameter& parameter() const { return *parameter_; }
    const RowOwners& owners() const { return owners_; }
    bool step_per_row() const { return step_per_row_; }
    /// The largest number of rows that leave or arrive on this rank at a time.
    std::int64_t most_moving() const { return most_moving_; }
    /// The largest number of rows that this rank may own at a time.
    std::int64_t capacity() const { return static_cast<std::int64_t>(row_of_.size()); }
    /// The number of rows that this rank owns.
    std::int64_t num_rows() const { return count_; }
    std::int64_t width() const { return width_; }
    std::int64_t gradient_width() const { return gradient_width_; }
    /// Width of the first moment; 0: none.
    std::int64_t m_width() const { return m_width_; }
    std::int64_t v_width() const { return v_width_; }
    /// True if moments are codes of 8 bits: where optim.state_bits asks for it, for the pair of moments of a
    /// tensor that has several columns and enough elements.
    bool coded() const { return coded_; }
    /// True if blocks of codes go on at other tp ranks, which hold other columns of the same rows.
    bool shares_blocks() const { return shares_blocks_; }
    /// Memory for the maxima of these blocks: (capacity, 4).
    void keep_end_maxima(Tensor memory) { end_maxima_ = memory; }
    bool mine(std::int32_t row) const { return owners_.owner[row] == owners_.group->rank(); }

    /// State of one owned row: (1, width), in accumulate type or, without a master, the value itself; moments
    /// (1, their width), numbers or codes; step (1) i32, or the common counter.
    Tensor master(std::int32_t row) const {
        return has_master_ ? master_.rows(index_[row], 1) : as_matrix(parameter_->value).rows(row, 1);
    }
    kernels::RowPart master_part(std::int32_t row, std::int64_t columns) const {
        if (!has_master_) return {as_matrix(parameter_->value), kernels::Rows::range(row, 1), 0, columns};
        return {master_, kernels::Rows::range(index_[row], 1), 0, columns};
    }
    Tensor m(std::int32_t row) const { return m_.values.rows(index_[row], 1); }
    Tensor v(std::int32_t row) const { return v_.values.rows(index_[row], 1); }
    Tensor step(std::int32_t row) const { return step_per_row_ ? step_.rows(index_[row], 1) : step_; }

    /// Storage places of those of `rows` that this rank owns, in the given order.
    std::vector<std::int32_t> stored(std::span<const std::int32_t> rows) const;
    /// (storage, width).
    Tensor masters() const { return master_; }
    /// The tensors (storage, .) of both moments. Moments are zero where all of these are.
    std::vector<Tensor> moments() const;
    /// The tensors (storage, .) that are sent when a row changes owner: moments, and the counter of a slot.
    std::vector<Tensor> travelling() const;
    /// Running `batch` sets moments and step counters of those of `rows` that this rank owns to 0.
    void reset_moments(std::span<const std::int32_t> rows, kernels::StepLists&,
                       kernels::RowBatch& batch) const;
    /// Freezes the rows with a non-zero entry (one entry per row): only their counters and the momentum that
    /// they have go on, their gradients count as zero, and they do not decay. For slots of a factor only.
    void set_frozen(const std::vector<int>& frozen);
    /// The same, with effect when `batch` is run.
    void set_frozen(const std::vector<int>& frozen, kernels::StepLists&, kernels::RowBatch& batch);

    void masters_from_values();
    void values_from_masters();  // sets owned rows only; gather afterwards
    /// The owned rows of the gradient, in ascending order.
    kernels::RowPart owned_gradient() const;
    /// The input of AdamW, if master, moments and gradient have the value's width. Empty if they do not (the
    /// method then updates) or if no row is owned here.
    kernels::AdamWRows adamw_rows(const kernels::AdamWSettings&) const;
    /// The state of the owned rows and their places in gradient and value, for methods that update them
    /// themselves; what is not kept (a master, a moment) is empty.
    kernels::AdamWRows state_rows(const kernels::AdamWSettings&) const;
    /// The owned rows in ascending order; consecutive where rows are owned in blocks.
    const kernels::Rows& owned_rows() const { return sorted_rows_; }

    void visit_state(StateIo&, const ModelContext&);

    /// Makes owners[i] the owner of rows[i]. The tables change at once, the storage when `close_gaps` is run.
    /// The state of rows that leave or arrive is not moved; that is the task of RowMoves. Call refresh()
    /// afterwards.
    void change_owners(std::span<const std::int32_t> rows, std::span<const int> owners, kernels::StepLists&,
                       kernels::RowBatch& close_gaps);
    /// The same for state whose content is not kept; refreshes the lists too.
    void assign_owners(std::span<const int> owner_of_row);
    /// Updates the kernels' lists of owned rows, with effect when `batch` is run.
    void refresh(kernels::StepLists&, kernels::RowBatch& batch);

  private:
    Tensor as_matrix(Tensor t) const { return t.reshape({t.dim(0), t.size() / t.dim(0)}); }
    std::vector<std::int32_t> held_rows() const;  // ascending
    void take_moments(const ModelContext&, std::int64_t capacity);
    /// Columns of the whole row of a moment.
    std::int64_t whole_width(bool apart, std::int64_t width) const;
    DistributedRows held_part() const;
    void visit_rows(StateIo&, const std::string& path, const DistributedRows&, Tensor state,
                    DType stored) const;
    void visit_moment(StateIo&, const std::string& path, const ModelContext&, const Moment&,
                      std::int64_t width, bool apart) const;

    /// Moves within the storage that fill the places of rows that left.
    struct Gaps {
        std::vector<std::int32_t> from, to;
    };
    Gaps change_tables(std::span<const std::int32_t> rows, std::span<const int> owners);
    std::vector<std::int32_t> frozen_in_storage(const std::vector<int>& frozen) const;
    void refresh();

    Parameter* parameter_;
    RowOwners owners_;
    std::int64_t width_, gradient_width_, m_width_, v_width_;
    bool m_apart_, v_apart_;  // their width is the method's, not that of the gradient
    bool step_per_row_, has_master_, aliased_;
    std::int64_t most_moving_;
    std::int64_t count_ = 0;                // number of rows owned now, in storage 0 ... count - 1
    std::vector<std::int32_t> index_;       // row -> storage place; -1: not owned here
    std::vector<std::int32_t> row_of_;      // storage place -> row
    std::vector<std::int32_t> frozen_now_;  // the content of frozen_ for the owned rows
    std::int64_t whole_column_ = 0;         // where the columns of coded moments begin in the whole row
    bool coded_ = false, shares_blocks_ = false;
    Moment m_, v_;
    Tensor master_, step_, frozen_, stored_list_, sorted_list_, end_maxima_;
    kernels::Rows stored_rows_,
        sorted_rows_;  // rows of the parameter, in the order of their storage and in ascending order
};

}  // namespace switchyard
