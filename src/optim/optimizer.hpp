// Optimizer: AdamW over everything trained, sharded: gradients are reduced to the owners of their rows,
// owners update their f32 masters, an all-gather distributes the new compute copies (ZeRO-1, Rajbhandari et
// al. 2020).
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
    /// Masters <- values: after initialisation.
    void masters_from_values();
    /// Values <- masters, everywhere: after loading.
    void values_from_masters();

    /// Gradients to the current owners, summed over their group in rank order.
    void reduce_gradients();
    /// squared_norm() <- sum of squares over the whole model, replicated values counted once, the same bits
    /// on all ranks. Collective.
    void measure_gradients();
    /// (1) f64 in back-end memory; one of scalars().
    Tensor squared_norm() const { return scalars_.slots(norm_slot_); }
    /// clip() <- clip coefficient of squared_norm(), and whether that and `loss` (1) f64, if given, are
    /// finite: update() does nothing otherwise.
    void decide_clip(Tensor loss = {});
    /// After the step, as read from scalars(): the norm before clipping.
    double gradient_norm(std::span<const double> scalars) const;
    /// Name of the first parameter whose gradient was not finite on some rank, "" if all were. Collective;
    /// for messages, as it waits for the back end.
    std::string first_bad_gradient() const;
    /// lr_factor: of the schedule (and method) at this step. `adjust` may change the settings of a parameter,
    /// or return false: the method updates it itself, predicated on clip().
    using Adjust = std::function<bool(OwnedParameter&, kernels::AdamWSettings&)>;
    void update(
        double lr_factor,
        const Adjust& adjust = [](OwnedParameter&, kernels::AdamWSettings&) { return true; });
    /// (2) f64 in back-end memory: clip coefficient, finite flag; after decide_clip().
    Tensor clip() const { return clip_; }
    /// What the host reads once a step: slots of all who take some while the state is built.
    kernels::StepScalars& scalars() { return scalars_; }
    void gather_values();

    /// Rows change owner: the tables at once, the state as RowMoves says. All ranks give the same moves; at
    /// most OwnershipPlan::most_moving rows of a parameter leave or arrive at a time.
    RowMoves plan_moves(const std::vector<RowMove>&, kernels::StepLists&);
    /// Other owners for the rows of one parameter, before its state is loaded; rebuild_buckets() once all are
    /// set.
    void assign_owners(int parameter, const std::vector<int>& owner);
    /// Of the groups whose rows change owners.
    void rebuild_buckets();
    /// Bytes that this rank sends per step, with the owners of now or, where given, these.
    Traffic plan_traffic(const std::map<int, std::vector<int>>& other_owners = {}) const;

    /// What a move sends from this rank.
    double move_bytes(const RowMove&) const;

    void visit_state(StateIo&);

  private:
    /// Parameters whose rows travel together.
    struct Group {
        const Comm* comm = nullptr;
        bool slots = false;        // rows of factors, which change owners; else those that never do
        DType type = DType::f32;   // of the values
        std::vector<int> members;  // indices in owned_
        std::vector<Tensor> gradients, values;
        std::int64_t capacity = 0;
        bool projected = false;  // a gradient has another width than its value
        std::shared_ptr<const BucketTable> value_table, gradient_table;  // the same, unless projected
        Tensor value_lists, gradient_lists;                              // i32, as many as rows
        Buckets values_in, gradients_in;
    };
    void add_group(const Comm&, bool slots, DType type);
    std::vector<BucketItem> items(const Group&, bool gradients,
                                  const std::map<int, std::vector<int>>& other_owners) const;
    /// How a bucket's list gets into the memory that keeps it.
    using PlaceList = std::function<void(std::span<const std::int32_t> list, Tensor memory)>;
    void rebuild(Group&, const PlaceList&);

    ModelContext context_;
    std::deque<OwnedParameter> owned_;
    std::vector<Group> groups_;  // dp, then world if it differs; of each what keeps its owners first
    Tensor send_, received_, clip_;
    kernels::StepScalars scalars_;
    int norm_slot_ = 0;
    Tensor sums_,
        weights_;  // (parameters) f64: squared norms of this rank's rows, and whether they count here
    RankValues norm_of_ranks_;
    std::vector<kernels::AdamWRows> updates_;
};

}  // namespace switchyard
