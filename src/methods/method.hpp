// Method: what a training method does around a step. By default every weight is trained densely;
// low_rank_method.hpp has the common part of methods with low-rank factors. A method overrides the hooks it
// needs (design section 5). A step calls the hooks in the order of declaration, from `begin_step` on.
#pragma once

#include "model/transformer.hpp"
#include "optim/optimizer.hpp"

namespace switchyard {

/// What after_gather() did, for the log.
struct MethodReport {
    std::int64_t vectors_switched = 0;  // over both sides and all matrices; merges count all slots
    std::int64_t moments_reset = 0;     // vectors, over all ranks
    double residual = 0;                // max |W_eff before - after| / max |W_eff| of the sampled matrix
    std::string residual_of;            // name of that matrix; empty: nothing was changed
    std::vector<std::string> kept;      // matrices that could not be changed in their turn, wholly or in part
    /// Terms of the objective besides the task's loss (a penalty, a distillation term): name and value as
    /// minimised in this step. The same on all ranks.
    std::vector<std::pair<std::string, double>> objective;
};

/// What can be done with a method's weights besides training.
enum class Use { evaluate, generate, export_weights, export_adapters, start_run, take_state };

/// Why a method cannot serve a use and what to do instead, as the part "(why); instead" of a message.
struct Refusal {
    std::string why, instead;
};

class Method {
  public:
    virtual ~Method() = default;

    /// Returns the adapter of a linear, or nullptr to train it densely. Only shapes are known: the linear is
    /// not allocated yet.
    virtual std::unique_ptr<Adapter> attach(const ModelContext&, Linear&) { return nullptr; }
    /// Returns the adapters of linears that read the same input, and the products that they share if they do.
    /// Default: attach() of each linear, nothing shared.
    virtual GroupAdapters attach_group(const ModelContext&, LinearGroup&);
    /// Who owns the rows of a parameter at the start. Default: contiguous blocks over the ranks whose
    /// gradients are summed.
    virtual OwnershipPlan ownership(const ModelContext&, const Parameter&);
    /// Allocates the method's own memory (model and optimizer have theirs). Called twice per run: for
    /// measuring and for real.
    virtual void allocate(const ModelContext&, Transformer&, Optimizer&) {}
    /// Sets the initial values of what adapters train, after the model's weights have theirs. It may change
    /// those if the initial function is preserved.
    virtual void initialise(const ModelContext&) {}

    /// Weights or factors have changed; `step` updates were made. Recomputes what adapters derive from them
    /// (norms of rows, a value of a schedule), in memory of the adapters. Collective. Called after
    /// initialise, after loading (in training and for inference) and after each update.
    virtual void weights_changed(const ModelContext&, std::int64_t /*step*/) {}
    /// State of the method, other than parameters, on which the model's function depends (a mask, for
    /// example). It is in checkpoints and is read for inference too, before weights_changed().
    virtual void visit_function(StateIo&) {}

    /// Called before the first micro-batch of step `step` (0-based). A method that changes an effective
    /// weight for this step alone must call Transformer::weights_changed() here and again when the step is
    /// over; otherwise the step would use merged copies of an evaluation, or an evaluation those of the step.
    virtual void begin_step(std::int64_t /*step*/) {}
    /// The factor of the task's loss in the objective; gradients of forward() and backward() have it.
    virtual double task_weight() const { return 1; }
    /// Called after a micro-batch was uploaded and before its forward pass, for another pass of the model (a
    /// teacher's).
    virtual void begin_micro_batch(Transformer&) {}
    /// Called when the sum over micro-batches is complete on each rank and the sum over ranks has not begun.
    /// Operations that are linear in the gradient may happen here.
    virtual void reduce_gradients(Optimizer& optimizer) { optimizer.reduce_gradients(); }
    /// Must leave the squared norm in optimizer.squared_norm().
    virtual void squared_gradient_norm(Optimizer& optimizer) { optimizer.measure_gradients(); }
    /// For a mask, preconditioner or projection of the owners' gradients.
    virtual void before_update(Optimizer&, std::int64_t /*step*/) {}
    virtual void update(Optimizer& optimizer, double lr_factor) { optimizer.update(lr_factor); }
    /// For a switch, merge, reset, threshold or rotation: all ranks hold the updated vectors.
    virtual MethodReport after_gather(Optimizer&, std::int64_t /*step*/) { return {}; }
    /// Called when the host has read the step's scalars, before loss and norm are judged: a method that knows
    /// why they are not finite throws here. The same on all ranks.
    virtual void diagnose(std::span<const double> /*scalars*/) {}
    /// Called when the host has read the step's scalars (Optimizer::scalars()); completes and judges the
    /// report of after_gather().
    virtual void end_step(std::span<const double> /*scalars*/, MethodReport&) {}

    /// A factor on the learning rate of the schedule.
    virtual double lr_multiplier(std::int64_t /*step*/) const { return 1; }
    /// Saves or loads what a checkpoint holds besides parameters and moments. When loading it is called
    /// before the optimizer's state, so that owners that depend on it can be assigned first; when saving,
    /// after it.
    virtual void visit_state(StateIo&, Optimizer&) {}
    /// Returns why this method's weights cannot be used in this way (the result would be another function),
    /// if so.
    virtual std::optional<Refusal> refusal(Use) const { return std::nullopt; }
    /// What a user should know before the run (coverage of the bank, ...), one line each.
    virtual std::vector<std::string> notes(const Config&) const { return {}; }
    /// Operations of the update in a step, over all ranks, beside AdamW's and what adapters count.
    virtual double update_operations() const { return 0; }
    /// Bytes that this rank sends for reduction, update and after_gather in each of the first `steps` steps.
    virtual std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const;
};

}  // namespace switchyard
