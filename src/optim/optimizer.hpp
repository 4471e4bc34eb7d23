// Optimizer: AdamW for everything that is trained, sharded as in ZeRO-1 (Rajbhandari et al. 2020): gradients
// are reduced to the owners of their rows, owners update their f32 masters, and an all-gather distributes the
// new compute copies.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "kernels/step_memory.hpp"
#include "optim/buckets.hpp"
#include "optim/owned_parameter.hpp"
#include "optim/rank_values.hpp"
#include "optim/row_moves.hpp"

namespace switchyard {

class Optimizer {
  public:
    Optimizer(const ModelContext&, const std::vector<Parameter*>&,
              const std::function<OwnershipPlan(const Parameter&)>& ownership);

    std::deque<OwnedParameter>& owned() { return owned_; }
    int index_of(const Parameter*) const;

    void zero_gradients();
    /// Masters <- values; to be called after initialisation.
    void masters_from_values();
    /// Values <- masters, on all ranks; to be called after loading.
    void values_from_masters();

    /// Reduces gradients to the current owners, summed over their group in rank order.
    void reduce_gradients();
    /// squared_norm() <- sum of squares over the whole model. Replicated values count once, and the bits are
    /// the same on all ranks. Collective. `replace` is called between squared_norms() and their sum: a method
    /// may put other numbers in their places. What is not finite should stay so.
    void measure_gradients(const std::function<void()>& replace = [] {});
    /// (1) f64 in back-end memory; one of scalars().
    Tensor squared_norm() const { return scalars_.slots(norm_slot_); }
    /// (1) f64 in back-end memory, after measure_gradients(): the sum of squares of those rows of a
    /// gradient that this rank owns.
    Tensor squared_norm_of(int parameter) const { return sums_.rows(parameter, 1); }
    /// (parameters) f64: those of all, in the order of owned().
    Tensor squared_norms() const { return sums_; }
    /// clip() <- the clip coefficient for squared_norm(), and whether that and `loss` (1) f64, if given, are
    /// finite. If they are not, update() has no effect.
    void decide_clip(Tensor loss = {});
    /// The norm before clipping, from scalars() as read after the step.
    double gradient_norm(std::span<const double> scalars) const;
    /// Name of the first parameter whose gradient was not finite on some rank; "" if all were finite.
    /// Collective. For messages only, because it waits for the back end.
    std::string first_bad_gradient() const;
    /// lr_factor: the factor of the schedule (and method) for this step. `adjust` may change the settings of
    /// a parameter, or return false if the method updates the parameter itself (subject to clip()).
    using Adjust = std::function<bool(OwnedParameter&, kernels::AdamWSettings&)>;
    void update(
        double lr_factor,
        const Adjust& adjust = [](OwnedParameter&, kernels::AdamWSettings&) { return true; });
    /// (2) f64 in back-end memory: clip coefficient and finite flag, as set by decide_clip().
    Tensor clip() const { return clip_; }
    /// The scalars that the host reads once a step. Whoever needs some takes slots while the state is built.
    kernels::StepScalars& scalars() { return scalars_; }
    void gather_values();

    /// Changes the owners of rows. The tables change at once, the state when the RowMoves are run. All ranks
    /// must give the same moves; at most OwnershipPlan::most_moving rows of a parameter may leave or arrive
    /// at a time.
    RowMoves plan_moves(const std::vector<RowMove>&, kernels::StepLists&);
    /// Sets the owners of one parameter's rows before its state is loaded. Call rebuild_buckets() when all
    /// are set.
    void assign_owners(int parameter, const std::vector<int>& owner);
    /// Rebuilds the buckets of those groups whose rows have changed owners.
    void rebuild_buckets();
    /// Bytes that this rank sends per step, with the current owners or with `other_owners`.
    Traffic plan_traffic(const std::map<int, std::vector<int>>& other_owners = {}) const;

    /// What a user should know before the run: moments that optim.state_bits does not reach.
    std::vector<std::string> notes() const;
    /// Bytes that this rank sends for a move.
    double move_bytes(const RowMove&) const;

    void visit_state(StateIo&);

  private:
    /// Parameters whose rows are sent together.
    struct Group {
        const Comm* comm = nullptr;
        bool slots = false;        // true: rows of factors, which change owners; false: rows that never do
        DType type = DType::f32;   // type of the values
        std::vector<int> members;  // indices in owned_
        std::vector<Tensor> gradients, values;
        std::int64_t capacity = 0;
        bool projected = false;  // some gradient has another width than its value
        std::shared_ptr<const BucketTable> value_table, gradient_table;  // the same table, unless projected
        Tensor value_lists, gradient_lists;                              // i32, one element per row
        Buckets values_in, gradients_in;
    };
    void add_group(const Comm&, bool slots, DType type);
    std::vector<BucketItem> items(const Group&, bool gradients,
                                  const std::map<int, std::vector<int>>& other_owners) const;
    /// Copies a bucket's list into the memory that keeps it.
    using PlaceList = std::function<void(std::span<const std::int32_t> list, Tensor memory)>;
    void rebuild(Group&, const PlaceList&);
    /// Memory for the blocks of codes that tp ranks share.
    void take_end_maxima();
    /// One all-gather over tp for all of them, so that a block has one scale on every layout.
    void code_shared_blocks();

    ModelContext context_;
    std::deque<OwnedParameter> owned_;
    /// Of dp, then of world if it differs; within each, first the groups whose owners never change.
    std::vector<Group> groups_;
    Tensor send_, received_, clip_;
    kernels::StepScalars scalars_;
    int norm_slot_ = 0;
    Tensor sums_,
        weights_;  // (parameters) f64: squared norms of this rank's rows, and 1 or 0 for whether they count
                   // on this rank
    RankValues norm_of_ranks_;
    std::vector<kernels::AdamWRows> updates_;
    Tensor end_maxima_, maxima_of_ranks_;  // (n), (P, n) accumulate type, over tp; empty: no block is shared
    std::vector<std::int64_t> first_maximum_;  // by parameter
    std::vector<kernels::SharedBlocks> shared_;
};

}  // namespace switchyard
