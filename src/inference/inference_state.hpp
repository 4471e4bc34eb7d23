// A model for evaluation or conversion: weights and adapters without optimizer state.
#pragma once

#include <vector>

#include "io/checkpoint/checkpoint_file.hpp"
#include "train/model_state.hpp"

namespace switchyard {

/// Every whole weight of a model under its name, in the order of Transformer::parameters().
std::vector<Shard> whole_weights(const ModelConfig&);

/// A model for evaluation: weights and adapters, no optimizer.
struct InferenceState : ModelState {
    using ModelState::ModelState;
    /// Loads the values; products then use exactly those that training used.
    void load(const CheckpointReader&);
};

using AllocatedInference = Allocated<InferenceState>;
inline std::unique_ptr<AllocatedInference> allocate_inference(const Config& config, const Topology& topology,
                                                              Traffic& traffic) {
    return allocate<InferenceState>(config, topology, traffic);
}

}  // namespace switchyard
