// TrainState: everything of a run that changes, built over one arena. Built twice: over a measuring arena to
// know the cost (`plan`), then over the memory that it asked for.
#pragma once

#include <memory>

#include "methods/registry.hpp"

namespace switchyard {

class WeightReader;

struct TrainState {
    /// Shapes, ownership and memory. config: validated, vocab_size and method options resolved; outlives the
    /// state.
    TrainState(const Config&, const Topology&, Arena&, Traffic&);
    TrainState(const TrainState&) = delete;
    TrainState& operator=(const TrainState&) = delete;

    /// Step 0: seeded values of everything, the same on every layout.
    void initialise();
    /// All of it but `step`, to or from a checkpoint. Collective. After loading, products see the loaded
    /// values.
    void visit(StateIo&);
    /// Weights only, low-rank factors merged, from a checkpoint of the same model and any method
    /// (run.init_from); the method's own values are drawn anew and the function of the checkpoint is kept.
    /// Throws UserError on all ranks when a weight is missing or has another shape.
    void initialise_from(const CheckpointReader&);

    ModelContext context;
    std::unique_ptr<Method> method;
    Transformer model;
    Optimizer optimizer;
    std::int64_t step = 0;  // updates done
    int loss_slot = 0;      // among the optimizer's scalars: sum of the losses of a step
    RankValues loss_of_ranks;

  private:
    void visit_frozen_weights(StateIo&);
    void read_dense(const WeightReader&, OwnedParameter&);
};

/// What a checkpoint of this state holds in datasets; attributes and structure come on top.
std::uint64_t checkpoint_bytes(TrainState&);

/// The arena of a state and the state in it; `measured` is what its build asked for.
struct AllocatedState {
    Arena arena;
    std::unique_ptr<TrainState> state;
};
/// Measures, then allocates and builds. Throws UserError on all ranks when one has too little memory.
std::unique_ptr<AllocatedState> allocate_state(const Config&, const Topology&, Traffic&);

}  // namespace switchyard
