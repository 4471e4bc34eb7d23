// Ownership: which rank holds the optimizer state of a row. Every rank computes it by itself (design section
// 4), so no communication is needed to agree on it.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/topology.hpp"
#include "model/parameter.hpp"

namespace switchyard {

/// Row i of a parameter's local tensor is owned by rank owner[i] of `group`, the ranks over which its
/// gradient is summed.
struct RowOwners {
    const Comm* group = nullptr;
    std::vector<int> owner;
};

/// The ranks over which gradients of a parameter are summed: the whole world for a replicated factor (partial
/// over tp), else dp.
const Comm& owner_group(const Topology&, TpGradient);

/// Contiguous blocks of ceil(rows / ranks) rows, for dense parameters (and elements of vectors).
RowOwners block_owners(const Comm& group, std::int64_t rows);

/// The homes of candidate vectors: home(c) = (c mod r + rotate * (c div r) + stagger) mod P. Of any r
/// consecutive candidates on the ring of C, at most ceil(r / P) + 1 have the same home (checked by
/// test_ownership for many r, C and P).
struct HomeRule {
    std::int64_t low_rank = 1;
    std::int64_t stagger = 0;  // j stagger_step(P), where j numbers the sides of one width
    bool rotate = true;
    int ranks = 1;  // P

    int home(std::int64_t candidate) const {
        const std::int64_t lap = rotate ? candidate / low_rank : 0;
        return static_cast<int>((candidate % low_rank + lap + stagger) % ranks);
    }
};

/// The number nearest to P / golden ratio that has no common factor with P. Its multiples spread any
/// consecutive sides evenly over the homes, for every r (Weyl's sequence), and P of them exactly evenly.
/// (With r + 1 and P a divisor of r, neighbouring sides would have neighbouring homes.)
std::int64_t stagger_step(int ranks);

/// Slot i is owned by the home of candidate_of_slot[i].
RowOwners slot_owners(const Comm& group, const HomeRule&, const std::vector<int>& candidate_of_slot);

}  // namespace switchyard
