// Method: what a training method does around a step. The default bodies together are plain LoRA; a method
// overrides the hooks it needs (design section 5). A step calls them in the order of declaration below
// `begin_step`.
#pragma once

#include <array>
#include <map>

#include "methods/parts/low_rank_adapter.hpp"
#include "model/transformer.hpp"
#include "optim/optimizer.hpp"

namespace switchyard {

/// What after_gather() did, for the log.
struct MethodReport {
    std::int64_t vectors_switched = 0;  // over both sides and all matrices; merges count all slots
    std::int64_t moments_reset = 0;     // vectors, over all ranks
    double residual = 0;                // max |W_eff before - after| / max |W_eff| of the sampled matrix
    std::string residual_of;            // its name; empty: nothing was changed
};

class Method {
  public:
    virtual ~Method() = default;

    /// The adapter of a linear, or nullptr to train it dense. Shapes only: the linear has no memory yet.
    virtual std::unique_ptr<Adapter> attach(const ModelContext&, Linear&);
    /// Who owns the rows of a parameter at the start.
    virtual OwnershipPlan ownership(const ModelContext&, const Parameter&);
    /// Memory of the method's own; the model and the optimizer have theirs. Twice per run: measuring, then
    /// real.
    virtual void allocate(const ModelContext&, Transformer&, Optimizer&) {}
    /// Initial values of factors, after the model's weights have theirs; may change those (initial function
    /// preserved).
    virtual void initialise(const ModelContext&);

    /// Before the first micro-batch of step `step` (0-based).
    virtual void begin_step(std::int64_t /*step*/) {}
    /// After a micro-batch was uploaded, before its forward pass: another pass of the model (a teacher's).
    virtual void begin_micro_batch(Transformer&) {}
    /// Sum over micro-batches is complete on each rank, sum over ranks not begun: what is linear in the
    /// gradient may happen here.
    virtual void reduce_gradients(Optimizer& optimizer) { optimizer.reduce_gradients(); }
    /// Leaves the squared norm in optimizer.squared_norm().
    virtual void squared_gradient_norm(Optimizer& optimizer) { optimizer.measure_gradients(); }
    /// Mask, precondition or project the owners' gradients.
    virtual void before_update(Optimizer&, std::int64_t /*step*/) {}
    virtual void update(Optimizer& optimizer, double lr_factor) { optimizer.update(lr_factor); }
    /// Switch, merge, reset, threshold, rotate: all ranks hold the updated vectors.
    virtual MethodReport after_gather(Optimizer&, std::int64_t /*step*/) { return {}; }
    /// After the host has read the step's scalars (Optimizer::scalars()): completes and judges what
    /// after_gather() reported.
    virtual void end_step(std::span<const double> /*scalars*/, MethodReport&) {}

    /// Factor on top of the schedule.
    virtual double lr_multiplier(std::int64_t /*step*/) const { return 1; }
    /// What a checkpoint holds beyond parameters and moments. Loading: called before the optimizer's state,
    /// so that owners that depend on it can be assigned first. Saving: after it.
    virtual void visit_state(StateIo&, Optimizer&);
    /// What a user should know before the run (coverage of the bank, ...), one line each.
    virtual std::vector<std::string> notes(const Config&) const { return {}; }
    /// Bytes that this rank sends for reduction, update and after_gather in each of the first `steps` steps.
    virtual std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const;

  protected:
    /// One adapted linear, in the order of the forward pass.
    struct Adapted {
        Linear* linear = nullptr;
        LowRankAdapter* adapter = nullptr;
        /// A's and B's among the sides of the same owners and width: consecutive numbers spread them evenly.
        std::array<int, 2> side_number{};
    };
    virtual std::int64_t low_rank(const ModelContext&) const;
    virtual double scale(const ModelContext&) const;
    /// Position of a factor in adapted_: {matrix, side 0 A or 1 B}; {-1, 0} for other parameters.
    std::pair<int, int> find_factor(const Parameter&) const;
    /// A ~ U(+-1/sqrt(n)), B = 0.
    void initialise_plain(const ModelContext&);
    /// Where the vectors of a side live.
    static HomeRule home_rule(const ModelContext&, int side_number, const Comm& group, std::int64_t low_rank);

    std::vector<Adapted> adapted_;

  private:
    std::map<std::pair<const Comm*, std::int64_t>, int> num_sides_;  // by owner group and width
};

/// Fills rows of a factor (r, local width) of its global stream (rows numbered by `global_row`), U(-bound,
/// bound).
void fill_factor_row(const Parameter&, Tensor row, std::int64_t global_row, std::uint64_t key, double bound);

/// Bounds of the SwitchLoRA initialisation (arXiv 2406.06564, eq. 3): std[A] and std[B] times sqrt(3).
struct FactorBounds {
    double a = 0, b = 0;
};
FactorBounds switchlora_bounds(std::int64_t m, std::int64_t n, std::int64_t low_rank);

}  // namespace switchyard
