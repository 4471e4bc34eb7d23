// A model to evaluate or to convert: weights and adapters without optimizer state.
#pragma once

#include <memory>
#include <vector>

#include "io/checkpoint/checkpoint_file.hpp"
#include "methods/registry.hpp"

namespace switchyard {

/// Every weight of a model under its name, whole, in the order of Transformer::parameters().
std::vector<Shard> whole_weights(const ModelConfig&);

/// A model to evaluate: weights and adapters, no optimizer.
struct InferenceState {
    /// config: validated, vocab_size and method options resolved; outlives the state.
    InferenceState(const Config&, const Topology&, Arena&, Traffic&);
    InferenceState(const InferenceState&) = delete;
    InferenceState& operator=(const InferenceState&) = delete;
    /// Products then see exactly the values that training saw.
    void load(const CheckpointReader&);

    ModelContext context;
    std::unique_ptr<Method> method;
    Transformer model;
};

struct AllocatedInference {
    Arena arena;
    std::unique_ptr<InferenceState> state;
};
std::unique_ptr<AllocatedInference> allocate_inference(const Config&, const Topology&, Traffic&);

}  // namespace switchyard
