// Alternatives: the cost of a planned run with one setting changed, for settings that trade memory or traffic
// and do not change what is trained.
#pragma once

#include "plan/plan.hpp"

namespace switchyard {

struct Alternative {
    std::string setting;  // "parallel.tp = 2"
    /// Per step: memory of the rank that needs most, traffic of one rank, operations of all ranks.
    double memory_bytes = 0, sent_bytes = 0, flops = 0;
};

/// The alternatives that fit the ranks and change memory, bytes or operations by 0.1 % or more, the largest
/// saving of memory first.
std::vector<Alternative> alternatives(const Config&, const Plan&);

/// The same numbers for the plan itself.
Alternative as_planned(const Plan&);

}  // namespace switchyard
