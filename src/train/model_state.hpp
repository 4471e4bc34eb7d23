// ModelState: the model of a configuration with its method, for training and inference. It is built twice:
// over a measuring arena to learn the size, then over allocated memory.
#pragma once

#include <memory>

#include "kernels/workspace.hpp"
#include "methods/registry.hpp"
#include "train/node_memory.hpp"

namespace switchyard {

struct ModelState {
    /// Builds shapes, adapters and memory. The configuration must be validated, with vocab_size and `auto`
    /// resolved, and must outlive the state.
    ModelState(const Config&, const Topology&, Arena&, Traffic&);
    ModelState(const ModelState&) = delete;
    ModelState& operator=(const ModelState&) = delete;

    /// To be called when weights, factors or `step` have changed: the method's derived values and the copies
    /// that products use are recomputed. Collective.
    void weights_changed();

    ModelContext context;
    kernels::Workspace workspace;
    std::unique_ptr<Method> method;
    Transformer model;
    std::int64_t step = 0;  // number of updates of the weights so far
};

/// A state and the arena that holds it.
template <class State>
struct Allocated {
    Arena arena;
    std::unique_ptr<State> state;
};

/// Measures, then allocates and builds. Throws UserError on all ranks if one of them has too little memory.
template <class State>
std::unique_ptr<Allocated<State>> allocate(const Config& config, const Topology& topology, Traffic& traffic) {
    Arena measured;
    { State shapes(config, topology, measured, traffic); }
    auto result = std::make_unique<Allocated<State>>();
    result->arena = allocate_arena(topology, measured);
    result->state = std::make_unique<State>(config, topology, result->arena, traffic);
    return result;
}

}  // namespace switchyard
