// Alternatives: what other settings of a planned run would need, one change at a time: what a user can trade
// for memory or traffic without changing what is trained.
#pragma once

#include "plan/plan.hpp"

namespace switchyard {

struct Alternative {
    std::string setting;  // "parallel.tp = 2"
    double memory_bytes = 0, sent_bytes = 0,
           flops = 0;  // of the rank that needs most; of a rank, of all ranks; a step
};

/// Those that fit the ranks and change memory, bytes or operations by 0.1 % or more, the largest saving of
/// memory first.
std::vector<Alternative> alternatives(const Config&, const Plan&);

/// The same figures of a plan.
Alternative as_planned(const Plan&);

}  // namespace switchyard
