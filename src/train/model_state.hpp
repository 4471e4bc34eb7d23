// ModelState: the model of a configuration with its method, as training and inference share it. Built twice,
// over a measuring arena to know the cost, then over the memory that it asked for.
#pragma once

#include <memory>

#include "methods/registry.hpp"
#include "train/node_memory.hpp"

namespace switchyard {

struct ModelState {
    /// Shapes, adapters and memory. config: validated, vocab_size and `auto` resolved; outlives the state.
    ModelState(const Config&, const Topology&, Arena&, Traffic&);
    ModelState(const ModelState&) = delete;
    ModelState& operator=(const ModelState&) = delete;

    /// Weights, factors or `step` are others than before: what the method derives from them and the copies
    /// that products use are formed anew. Collective.
    void weights_changed();

    ModelContext context;
    std::unique_ptr<Method> method;
    Transformer model;
    std::int64_t step = 0;  // updates that the weights have seen
};

/// A state and the arena it lies in.
template <class State>
struct Allocated {
    Arena arena;
    std::unique_ptr<State> state;
};

/// Measures, then allocates and builds. Throws UserError on all ranks when one has too little memory.
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
