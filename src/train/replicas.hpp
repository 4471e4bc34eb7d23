// Replicas: weights that several ranks hold alike, each updating its own copy. Nothing in a step would notice
// that they have drifted apart, so they are compared by hashes of their bits now and then.
#pragma once

#include "train/train_state.hpp"

namespace switchyard {

/// Frozen words and compute copies of this rank that others have too: over dp all of them, except frozen
/// weights that are sharded; over tp the parameters that all tp ranks hold.
struct Replica {
    std::string name;
    Tensor tensor;
    bool over_tp = false;
};
/// The same list, but for the tensors, on all ranks.
std::vector<Replica> replicas(TrainState&);

/// Takes the room for their hashes from the arena: part of building a state.
void reserve_replica_hashes(TrainState&);

/// Collective over the world. Throws AgreedError naming step, tensor, ranks and hosts when two copies differ.
void compare_replicas(TrainState&);

}  // namespace switchyard
