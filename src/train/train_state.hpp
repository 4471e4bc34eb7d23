// TrainState: everything of a run that changes: model, method, optimizer.
#pragma once

#include "train/model_state.hpp"

namespace switchyard {

class WeightReader;

struct TrainState : ModelState {
    TrainState(const Config&, const Topology&, Arena&, Traffic&);

    /// Step 0: seeded values of everything, the same on every layout.
    void initialise();
    /// All of it but `step`, to or from a checkpoint; before loading, `step` is the checkpoint's. Collective.
    /// After loading, products see the loaded values.
    void visit(StateIo&);
    /// Weights only, low-rank factors merged, from a checkpoint of the same model and any method
    /// (run.init_from); the method's own values are drawn anew and the function of the checkpoint is kept.
    /// Throws UserError on all ranks when a weight is missing or has another shape.
    void initialise_from(const CheckpointReader&);

    Optimizer optimizer;
    int loss_slot = 0;  // among the optimizer's scalars: sum of the losses of a step
    RankValues loss_of_ranks;

  private:
    void visit_frozen_weights(StateIo&);
    void read_dense(const WeightReader&, OwnedParameter&);
};

/// What a checkpoint of this state holds in datasets; attributes and structure come on top.
std::uint64_t checkpoint_bytes(TrainState&);

using AllocatedState = Allocated<TrainState>;
inline std::unique_ptr<AllocatedState> allocate_state(const Config& config, const Topology& topology,
                                                      Traffic& traffic) {
    return allocate<TrainState>(config, topology, traffic);
}

}  // namespace switchyard
