// Method: what a training method does around a step. The default bodies train every weight densely; what
// methods with low-rank factors share is in low_rank_method.hpp. A method overrides the hooks it needs
// (design section 5). A step calls them in the order of declaration below `begin_step`.
#pragma once

#include "model/transformer.hpp"
#include "optim/optimizer.hpp"

namespace switchyard {

/// What after_gather() did, for the log.
struct MethodReport {
    std::int64_t vectors_switched = 0;  // over both sides and all matrices; merges count all slots
    std::int64_t moments_reset = 0;     // vectors, over all ranks
    double residual = 0;                // max |W_eff before - after| / max |W_eff| of the sampled matrix
    std::string residual_of;            // its name; empty: nothing was changed
    /// Parts of the objective beside the task's loss (a penalty, a distillation term): name and value, as
    /// they were minimised in this step. The same on all ranks.
    std::vector<std::pair<std::string, double>> objective;
};

/// What is done with the weights that a method has trained, beside training on.
enum class Use { evaluate, generate, export_weights, export_adapters, start_run };

/// Why a method does not serve a use, and what to do instead: "(why); instead" of a message.
struct Refusal {
    std::string why, instead;
};

class Method {
  public:
    virtual ~Method() = default;

    /// The adapter of a linear, or nullptr to train it dense. Shapes only: the linear has no memory yet.
    virtual std::unique_ptr<Adapter> attach(const ModelContext&, Linear&) { return nullptr; }
    /// Who owns the rows of a parameter at the start: contiguous blocks over the ranks whose gradients add
    /// up.
    virtual OwnershipPlan ownership(const ModelContext&, const Parameter&);
    /// Memory of the method's own; the model and the optimizer have theirs. Twice per run: measuring, then
    /// real.
    virtual void allocate(const ModelContext&, Transformer&, Optimizer&) {}
    /// Initial values of what adapters train, after the model's weights have theirs; may change those
    /// (initial function preserved).
    virtual void initialise(const ModelContext&) {}

    /// Weights and factors are others than before, after `step` updates: what adapters derive from them
    /// (norms of rows, a value of a schedule) is formed anew, in memory of the adapters. Collective; called
    /// after initialise, after loading, in training and for inference, and after each update.
    virtual void weights_changed(const ModelContext&, std::int64_t /*step*/) {}
    /// The method's state that the model's function depends on beside parameters (a mask, say): in
    /// checkpoints, and read for inference too, before weights_changed().
    virtual void visit_function(StateIo&) {}

    /// Before the first micro-batch of step `step` (0-based). Who changes an effective weight here, for this
    /// step alone, says so by Transformer::weights_changed(), here and when it is over: merged copies formed
    /// for an evaluation would serve the step otherwise, and those of the step an evaluation.
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
    virtual void visit_state(StateIo&, Optimizer&) {}
    /// What this method cannot do with its weights, because it would compute another function.
    virtual std::optional<Refusal> refusal(Use) const { return std::nullopt; }
    /// What a user should know before the run (coverage of the bank, ...), one line each.
    virtual std::vector<std::string> notes(const Config&) const { return {}; }
    /// Bytes that this rank sends for reduction, update and after_gather in each of the first `steps` steps.
    virtual std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const;
};

}  // namespace switchyard
