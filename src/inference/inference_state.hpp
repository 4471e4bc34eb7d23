// A model to evaluate or to convert: weights and adapters without optimizer state.
#pragma once

#include <vector>

#include "io/checkpoint/checkpoint_file.hpp"
#include "train/model_state.hpp"

namespace switchyard {

/// Every weight of a model under its name, whole, in the order of Transformer::parameters().
std::vector<Shard> whole_weights(const ModelConfig&);

/// A model to evaluate: weights and adapters, no optimizer.
struct InferenceState : ModelState {
    using ModelState::ModelState;
    /// Products then see exactly the values that training saw.
    void load(const CheckpointReader&);
};

using AllocatedInference = Allocated<InferenceState>;
inline std::unique_ptr<AllocatedInference> allocate_inference(const Config& config, const Topology& topology,
                                                              Traffic& traffic) {
    return allocate<InferenceState>(config, topology, traffic);
}

}  // namespace switchyard
