// Optimizer: AdamW over everything trained, sharded: gradients are reduced to the owners of their rows,
// owners update their f32 masters, an all-gather distributes the new compute copies (ZeRO-1, Rajbhandari et
// al. 2020).
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>

#include "optim/buckets.hpp"
#include "optim/owned_parameter.hpp"

namespace switchyard {

/// A row that changes owner: rank numbers within the parameter's group.
struct RowMove {
    int parameter = 0;  // index in Optimizer::owned()
    std::int32_t row = 0;
    int from = 0, to = 0;
};

struct GradientCheck {
    double norm = 0;  // global, before clipping
    bool finite = true;
    std::string first_bad;  // name of the first parameter whose gradient is not finite
};

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
    /// Sum of squares over the whole model, replicated values counted once, the same bits on all ranks.
    double squared_gradient_norm() const;
    /// Clip coefficient and finite flag for update(), from the squared norm; names the first bad parameter
    /// (collective).
    GradientCheck check(double squared_norm);
    /// lr_factor: of the schedule (and method) at this step. `adjust` may change the settings of a parameter,
    /// or return false: the method updates it itself, predicated on clip().
    using Adjust = std::function<bool(OwnedParameter&, kernels::AdamWSettings&)>;
    void update(
        double lr_factor,
        const Adjust& adjust = [](OwnedParameter&, kernels::AdamWSettings&) { return true; });
    /// (2) f64 in back-end memory: clip coefficient, finite flag; after check().
    Tensor clip() const { return clip_; }
    void gather_values();

    /// Rows change owner: moments and step counters travel, masters do not. Collective over the world; all
    /// ranks give the same moves.
    void move_rows(const std::vector<RowMove>&);
    /// Other owners for the rows of one parameter, before its state is loaded; rebuild_buckets() once all are
    /// set.
    void assign_owners(int parameter, const std::vector<int>& owner);
    void rebuild_buckets();
    /// Bytes that this rank sends per step, with the owners of now or, where given, these.
    Traffic plan_traffic(const std::map<int, std::vector<int>>& other_owners = {}) const;

    /// What move_rows() sends from this rank for one row.
    double move_bytes(const RowMove&) const;

    void visit_state(StateIo&);

  private:
    struct Group {
        const Comm* comm = nullptr;
        std::vector<int> members;  // indices in owned_
        std::vector<Tensor> gradients, values;
        std::int64_t capacity = 0;
        Buckets value_buckets;
        std::optional<Buckets> projected_buckets;  // of the gradients, where one has another width
        const Buckets& gradient_buckets() const {
            return projected_buckets ? *projected_buckets : value_buckets;
        }
    };
    struct Items {
        std::vector<BucketItem> values, gradients;
        bool projected = false;  // a gradient has another width than its value
    };
    Items bucket_items(const Group&, const std::map<int, std::vector<int>>& other_owners) const;

    ModelContext context_;
    std::deque<OwnedParameter> owned_;
    std::vector<Group> groups_;  // dp, then world if it differs
    Tensor send_, received_, clip_;
};

}  // namespace switchyard
