// TrainState: everything that changes during a run: model, method, optimizer.
#pragma once

#include "train/model_state.hpp"

namespace switchyard {

class WeightReader;

struct TrainState : ModelState {
    TrainState(const Config&, const Topology&, Arena&, Traffic&);

    /// Sets the values of step 0 from the seed, the same on every layout.
    void initialise();
    /// Saves or loads everything except `step`, which must be the checkpoint's before loading. Collective.
    /// After loading, products use the loaded values.
    void visit(StateIo&, const CheckpointReader::Progress& progress = {});
    /// Takes only the weights, with low-rank factors merged, from a checkpoint of the same model and any
    /// method (run.init_from). The method's own values are drawn anew, and the function of the checkpoint is
    /// kept. Throws UserError on all ranks if a weight is missing or has another shape.
    void initialise_from(const CheckpointReader&, const CheckpointReader::Progress& progress = {});

    Optimizer optimizer;
    int loss_slot = 0;  // slot of the sum of a step's losses among the optimizer's scalars
    RankValues loss_of_ranks;

  private:
    void visit_frozen_weights(StateIo&);
    void read_dense(const WeightReader&, OwnedParameter&);
};

/// Bytes of the datasets in a checkpoint of this state, without attributes and structure.
std::uint64_t checkpoint_bytes(TrainState&);

using AllocatedState = Allocated<TrainState>;
inline std::unique_ptr<AllocatedState> allocate_state(const Config& config, const Topology& topology,
                                                      Traffic& traffic) {
    return allocate<TrainState>(config, topology, traffic);
}

}  // namespace switchyard
