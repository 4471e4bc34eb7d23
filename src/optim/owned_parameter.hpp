// OwnedParameter: the optimizer state (master, moments, step counters) of the rows of one parameter that this
// rank owns. Rows may change owner (Optimizer::plan_moves); storage has a fixed capacity and no order.
#pragma once

#include "core/arena.hpp"
#include "io/checkpoint/state_io.hpp"
#include "kernels/adamw.hpp"
#include "kernels/step_memory.hpp"
#include "model/context.hpp"
#include "optim/ownership.hpp"

namespace switchyard {

/// Who owns a parameter's rows at the start, and how its state is kept.
struct OwnershipPlan {
    RowOwners owners;
    std::int64_t capacity = 0;     // rows this rank may own at a time
    bool step_per_row = false;     // slots of a factor; else one step counter for all
    std::int64_t most_moving = 0;  // rows that leave or arrive here at a time, at most
    /// Without a master the owners' values are what is trained and stored.
    bool master = true;
    /// Columns of the moments; 0: none. What is not as wide as gradient and value the method updates itself.
    static constexpr std::int64_t as_gradient = -1;
    std::int64_t m_width = as_gradient, v_width = as_gradient;
};

class OwnedParameter {
  public:
    OwnedParameter(const ModelContext&, Parameter&, OwnershipPlan);

    Parameter& parameter() const { return *parameter_; }
    const RowOwners& owners() const { return owners_; }
    bool step_per_row() const { return step_per_row_; }
    /// Rows that leave or arrive here at a time, at most.
    std::int64_t most_moving() const { return most_moving_; }
    /// Rows owned here.
    std::int64_t num_rows() const { return count_; }
    std::int64_t width() const { return width_; }
    std::int64_t gradient_width() const { return gradient_width_; }
    /// Of the moments; 0: none.
    std::int64_t m_width() const { return m_width_; }
    std::int64_t v_width() const { return v_width_; }
    bool mine(std::int32_t row) const { return owners_.owner[row] == owners_.group->rank(); }

    /// State of one owned row: (1, width), in accumulate type or, without a master, the value itself; moments
    /// (1, their width); step (1) i32, or the common counter.
    Tensor master(std::int32_t row) const {
        return has_master_ ? master_.rows(index_[row], 1) : as_matrix(parameter_->value).rows(row, 1);
    }
    kernels::RowPart master_part(std::int32_t row, std::int64_t columns) const {
        if (!has_master_) return {as_matrix(parameter_->value), kernels::Rows::range(row, 1), 0, columns};
        return {master_, kernels::Rows::range(index_[row], 1), 0, columns};
    }
    Tensor m(std::int32_t row) const { return m_.rows(index_[row], 1); }
    Tensor v(std::int32_t row) const { return v_.rows(index_[row], 1); }
    Tensor step(std::int32_t row) const { return step_per_row_ ? step_.rows(index_[row], 1) : step_; }

    /// Where those of `rows` that are owned here lie in the storage, in their order.
    std::vector<std::int32_t> stored(std::span<const std::int32_t> rows) const;
    /// (storage, width).
    Tensor masters() const { return master_; }
    /// What travels when a row changes owner, each (storage, .): moments, and the counter of a slot.
    std::vector<Tensor> travelling() const;
    /// Moments and step counters of these rows <- 0, where owned, once `batch` is run.
    void reset_moments(std::span<const std::int32_t> rows, kernels::StepLists&,
                       kernels::RowBatch& batch) const;
    /// From now on rows with a non-zero entry (one per row) stay as they are but for their counters and what
    /// momentum they have: their gradients count as zero, and they do not decay. Slots of a factor only.
    void set_frozen(const std::vector<int>& frozen);
    /// The same once `batch` is run.
    void set_frozen(const std::vector<int>& frozen, kernels::StepLists&, kernels::RowBatch& batch);

    void masters_from_values();
    void values_from_masters();  // owned rows only: gather afterwards
    /// The owned rows of the gradient, ascending.
    kernels::RowPart owned_gradient() const;
    /// What AdamW updates, where master, moments and gradient have the value's width; else the method's own.
    /// With no row here: nothing.
    kernels::AdamWRows adamw_rows(const kernels::AdamWSettings&) const;

    void visit_state(StateIo&, const ModelContext&);

    /// rows[i] goes to owners[i]: the tables at once, the storage once `close_gaps` is run; the content of
    /// what leaves or arrives is not moved (RowMoves). Then refresh().
    void change_owners(std::span<const std::int32_t> rows, std::span<const int> owners, kernels::StepLists&,
                       kernels::RowBatch& close_gaps);
    /// The same where no content is to be kept; refreshes.
    void assign_owners(std::span<const int> owner_of_row);
    /// Lists of the owned rows for kernels, once `batch` is run.
    void refresh(kernels::StepLists&, kernels::RowBatch& batch);

  private:
    Tensor as_matrix(Tensor t) const { return t.reshape({t.dim(0), t.size() / t.dim(0)}); }
    std::vector<std::int32_t> held_rows() const;  // ascending

    /// Storage that is moved to fill what has been left.
    struct Gaps {
        std::vector<std::int32_t> from, to;
    };
    Gaps change_tables(std::span<const std::int32_t> rows, std::span<const int> owners);
    std::vector<std::int32_t> frozen_in_storage(const std::vector<int>& frozen) const;
    void refresh();

    Parameter* parameter_;
    RowOwners owners_;
    std::int64_t width_, gradient_width_, m_width_, v_width_;
    bool step_per_row_, has_master_, aliased_;
    std::int64_t most_moving_;
    std::int64_t count_ = 0;                // rows owned now: storage 0 ... count - 1
    std::vector<std::int32_t> index_;       // row -> storage, -1: not here
    std::vector<std::int32_t> row_of_;      // storage -> row
    std::vector<std::int32_t> frozen_now_;  // what frozen_ holds of the owned rows
    Tensor master_, m_, v_, step_, frozen_, stored_list_, sorted_list_;
    kernels::Rows stored_rows_,
        sorted_rows_;  // of the parameter: in the order of their storage, and ascending
};

}  // namespace switchyard
