// What every part of the model needs to know: sizes, the source of its memory, and the ranks it communicates
// with.
#pragma once

#include "comm/collectives.hpp"
#include "comm/topology.hpp"
#include "config/config.hpp"
#include "core/arena.hpp"

namespace switchyard {

struct ModelContext {
    const Config& config;
    const Topology& topology;
    Arena& arena;
    Traffic& traffic;
    DType dtype;               // compute type
    std::int64_t micro_batch;  // B
    std::int64_t seq_len;      // T

    std::int64_t tokens() const { return micro_batch * seq_len; }
    DType accumulate() const { return accumulate_type(dtype); }
    int tp_size() const { return topology.tp_size(); }
    int tp_rank() const { return topology.tp_rank(); }
};

}  // namespace switchyard
