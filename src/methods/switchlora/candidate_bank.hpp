// CandidateBank: the candidate vectors of one side of one matrix that live on this rank (design section 4,
// "Who owns a low-rank shard"). An active candidate's value is its master at the owner of its slot; its row
// here is then out of date.
#pragma once

#include "optim/owned_parameter.hpp"

namespace switchyard {

struct CandidateBank {
    CandidateBank(Parameter& factor, const Comm& group, const HomeRule& rule, std::int64_t num_candidates);

    bool here(int candidate) const { return rule.home(candidate) == group->rank(); }
    /// (1, width); of a candidate that is here.
    Tensor vector(int candidate) const { return bank.rows(row[candidate], 1); }

    /// Of those candidates that are here, in their order.
    kernels::RowPart rows(const std::vector<int>& candidates, kernels::StepLists&) const;

    /// Dataset (C, width): rows of active candidates are the masters. `slots`: candidate of each slot.
    /// Loading sets the rows of inactive and active candidates alike.
    void visit_state(StateIo&, const std::string& path, OwnedParameter&, const std::vector<int>& slots);

    Parameter* factor;
    const Comm* group;  // over which candidates are spread
    HomeRule rule;
    int owned = -1;                   // index of the factor in the optimizer
    std::vector<std::int32_t> homed;  // candidates that live here, ascending
    std::vector<std::int32_t> row;    // candidate -> row of bank, -1: elsewhere
    Tensor bank;                      // (homed, width)
    Tensor incoming;                  // (most at once, width) compute type: what a switch brings
};

}  // namespace switchyard
