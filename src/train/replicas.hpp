// Replicas: weights of which several ranks hold copies, each updating its own. If copies drifted apart,
// nothing in a step would show it, so hashes of their bits are compared from time to time.
#pragma once

#include "train/train_state.hpp"

namespace switchyard {

/// A tensor of this rank of which other ranks hold copies. Over dp these are all frozen words and compute
/// copies, except frozen weights that are sharded; over tp they are the parameters that all tp ranks hold.
struct Replica {
    std::string name;
    Tensor tensor;
    bool over_tp = false;
};
/// All replicas; except for the tensors the list is the same on all ranks.
std::vector<Replica> replicas(TrainState&);

/// Takes the memory for the hashes from the arena; part of building a state.
void reserve_replica_hashes(TrainState&);

/// Collective over the world. Throws AgreedError naming step, tensor, ranks and hosts if two copies differ.
void compare_replicas(TrainState&);

}  // namespace switchyard
