// Plan: the cost of a configuration before a launch. The state is built over a measuring arena, on imaginary
// ranks. Memory, bytes and checkpoint size are exact; the time is a lower bound.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "plan/flops.hpp"
#include "train/train_state.hpp"

namespace switchyard {

/// Bytes of an arena by class; shared scratch counts as workspace.
struct MemoryUse {
    std::array<double, num_memory_classes> bytes{};
    double total() const;
    double of(MemoryClass c) const { return bytes[static_cast<int>(c)]; }
};
MemoryUse memory_of(const Arena&);

/// The plan of one rank.
struct RankPlan {
    MemoryUse memory;
    std::vector<Traffic> steps;  // bytes sent in each of the first steps
    Traffic mean() const;        // the mean over these steps
};

struct Plan {
    int ranks = 1, dp = 1, tp = 1;
    ParameterCounts parameters;
    int merged_linears = 0, unmerged_linears = 0;  // low-rank linears by the way their products run
    RankPlan rank;             // of the requested rank; other ranks send as much, except for moving rows
    MemoryUse largest_memory;  // the rank with the largest total
    int ranks_looked_at = 1;
    double pinned_bytes = 0;  // of host memory, beside the arena, at most
    Flops flops_per_token;
    double tokens_per_step = 0;
    std::uint64_t checkpoint_bytes = 0;  // datasets only; a file has a little more
    std::vector<std::string> notes;      // the method's and the optimizer's
};

/// The configuration must be validated and resolved. `steps`: the number of steps whose traffic is planned.
/// Besides `rank`, other ranks are planned to find the one that needs most memory: all of up to 16, otherwise
/// the first and the last tp group.
Plan make_plan(const Config&, int ranks, int rank, std::int64_t steps);

ParameterCounts count_parameters(TrainState&);
FlopsModel flops_model(TrainState&);

double total_bytes(const Traffic&);

}  // namespace switchyard
