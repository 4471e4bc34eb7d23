// Shard: the position of a rank's values in a whole tensor. Used by checkpoints, initial values and norms.
#pragma once

#include <string>

#include "core/tensor.hpp"

namespace switchyard {

struct Shard {
    std::string name;                 // dotted, as in the checkpoint: model.layers.0.self_attn.q_proj.weight
    Shape global;                     // (rows, cols) or (n), without padding
    std::int64_t row0 = 0, col0 = 0;  // global position of the local tensor's first element
    std::int64_t rows = 0,
                 cols = 1;  // valid local extent; the local tensor may be larger (padding), never smaller
    int replica = 0;        // number among the ranks that hold the same values
    int replicas = 0;       // how many there are; 0: not known, then replica 0 alone writes

    std::int64_t global_cols() const { return global.rank() == 2 ? global[1] : 1; }
    bool empty() const { return rows == 0 || cols == 0; }
};

}  // namespace switchyard
