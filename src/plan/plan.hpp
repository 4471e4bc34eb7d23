// Plan: what a configuration costs, before a launch: the state is built over a measuring arena, on ranks that
// need not exist. Memory, bytes and checkpoint size are exact; time is a bound.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "plan/flops.hpp"
#include "train/train_state.hpp"

namespace switchyard {

/// Bytes of an arena by class; what all share lies under workspace.
struct MemoryUse {
    std::array<double, num_memory_classes> bytes{};
    double total() const;
    double of(MemoryClass c) const { return bytes[static_cast<int>(c)]; }
};
MemoryUse memory_of(const Arena&);

/// What one rank sees.
struct RankPlan {
    MemoryUse memory;
    std::vector<Traffic> steps;  // bytes sent in each of the first steps
    Traffic mean() const;        // over them
};

struct Plan {
    int ranks = 1, dp = 1, tp = 1;
    ParameterCounts parameters;
    int merged_linears = 0, unmerged_linears = 0;  // low-rank linears by the way their products run
    RankPlan rank;             // of the rank asked for; others send as much, but for moving shards
    MemoryUse largest_memory;  // the rank with the largest total
    int ranks_looked_at = 1;
    Flops flops_per_token;
    double tokens_per_step = 0;
    std::uint64_t checkpoint_bytes = 0;  // datasets; a file has a little more
    std::vector<std::string> notes;      // of the method
};

/// config: validated and resolved. `steps`: of which bytes are planned. Ranks beside `rank` are looked at to
/// find the one that needs most memory: all up to 16, else the first and last tp group.
Plan make_plan(const Config&, int ranks, int rank, std::int64_t steps);

ParameterCounts count_parameters(TrainState&);
FlopsModel flops_model(TrainState&);

double total_bytes(const Traffic&);

}  // namespace switchyard
