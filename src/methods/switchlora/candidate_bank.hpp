// CandidateBank: the candidate vectors of one side of one matrix that are stored on this rank (design section
// 4, "Who owns a low-rank shard"). The value of an active candidate is its master at the owner of its slot;
// its row in the bank is then out of date.
#pragma once

#include "optim/owned_parameter.hpp"

namespace switchyard {

struct CandidateBank {
    CandidateBank(Parameter& factor, const Comm& group, const HomeRule& rule, std::int64_t num_candidates);

    bool here(int candidate) const { return rule.home(candidate) == group->rank(); }
    /// The vector (1, width) of a candidate that is on this rank.
    Tensor vector(int candidate) const { return bank.rows(row[candidate], 1); }

    /// The bank's rows of those candidates that are on this rank, in the given order.
    kernels::RowPart rows(const std::vector<int>& candidates, kernels::StepLists&) const;

    /// Saves or loads the dataset (C, width). When saving, rows of active candidates come from their masters.
    /// `slots`: the candidate of each slot. Loading sets the rows of inactive and active candidates alike.
    void visit_state(StateIo&, const std::string& path, OwnedParameter&, const std::vector<int>& slots);

    Parameter* factor;
    const Comm* group;  // the ranks over which candidates are spread
    HomeRule rule;
    int owned = -1;                   // index of the factor in the optimizer
    std::vector<std::int32_t> homed;  // candidates on this rank, ascending
    std::vector<std::int32_t> row;    // candidate -> row of bank; -1: on another rank
    Tensor bank;                      // (homed, width)
    Tensor incoming;  // (most at once, width) in the compute type: the vectors that a switch brings
};

}  // namespace switchyard
