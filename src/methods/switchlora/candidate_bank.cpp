// Which candidates are on this rank, and how they are saved and loaded.
#include "methods/switchlora/candidate_bank.hpp"

namespace switchyard {

CandidateBank::CandidateBank(Parameter& factor, const Comm& group, const HomeRule& rule,
                             std::int64_t num_candidates)
    : factor(&factor), group(&group), rule(rule), row(num_candidates, -1) {
    for (std::int32_t c = 0; c < num_candidates; ++c) {
        if (!here(c)) continue;
        row[c] = static_cast<std::int32_t>(homed.size());
        homed.push_back(c);
    }
}

kernels::RowPart CandidateBank::rows(const std::vector<int>& candidates, kernels::StepLists& lists) const {
    std::vector<std::int32_t> here_now;
    for (int candidate : candidates)
        if (here(candidate)) here_now.push_back(row[candidate]);
    return kernels::whole_rows(bank, lists.rows(here_now));
}

void CandidateBank::visit_state(StateIo& io, const std::string& path, OwnedParameter& owned,
                                const std::vector<int>& slots) {
    const auto num_candidates = static_cast<std::int64_t>(row.size());
    std::vector<std::int32_t> slot_of(row.size(), -1);  // of active candidates; -1 for others
    for (std::size_t slot = 0; slot < slots.size(); ++slot)
        slot_of[slots[slot]] = static_cast<std::int32_t>(slot);

    DistributedRows d;
    d.group = group;
    d.held = homed;
    d.global = {num_candidates, factor->shard.global[1]};
    d.col0 = factor->shard.col0;
    d.rows = num_candidates;
    d.cols = factor->shard.cols;
    const auto stored = [this, cols = d.cols](std::int32_t c) {
        return kernels::RowPart{bank, kernels::Rows::range(row[c], 1), 0, cols};
    };
    const auto current = [stored, slot_of, &owned, cols = d.cols](std::int32_t c) {
        return slot_of[c] >= 0 ? owned.master_part(slot_of[c], cols) : stored(c);
    };
    io.rows(path, d, {accumulate_type(bank.dtype()), current, stored});
}

}  // namespace switchyard
