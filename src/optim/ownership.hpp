// Ownership: which rank holds the optimizer state of a row. Pure arithmetic (design section 4), known to
// every rank, so nothing is ever sent to agree on it.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/topology.hpp"
#include "model/parameter.hpp"

namespace switchyard {

/// Row i of a parameter's local tensor is owned by rank owner[i] of `group`, over which its gradient is
/// summed.
struct RowOwners {
    const Comm* group = nullptr;
    std::vector<int> owner;
};

/// The ranks whose gradients of a parameter add up: the whole world for a replicated factor (partial over
/// tp), else dp.
const Comm& owner_group(const Topology&, TpGradient);

/// Contiguous blocks of ceil(rows / ranks) rows: dense parameters (vectors by index).
RowOwners block_owners(const Comm& group, std::int64_t rows);

/// Where candidate vectors live: home(c) = (c mod r + rotate * (c div r) + stagger) mod P. Of any r
/// consecutive candidates on the ring of C, at most ceil(r / P) + 1 have the same home (test_ownership checks
/// it for many r, C and P).
struct HomeRule {
    std::int64_t low_rank = 1;
    std::int64_t stagger = 0;  // j stagger_step(P), j numbering the sides of one width
    bool rotate = true;
    int ranks = 1;  // P

    int home(std::int64_t candidate) const {
        const std::int64_t lap = rotate ? candidate / low_rank : 0;
        return static_cast<int>((candidate % low_rank + lap + stagger) % ranks);
    }
};

/// The number nearest to P / golden ratio without a common factor with P. Its multiples spread any
/// consecutive sides evenly over the homes, many or few, whatever r is (Weyl's sequence; with r + 1 and P a
/// divisor of r, neighbours would crowd), and P of them exactly.
std::int64_t stagger_step(int ranks);

/// Slot i is owned by the home of candidate_of_slot[i].
RowOwners slot_owners(const Comm& group, const HomeRule&, const std::vector<int>& candidate_of_slot);

}  // namespace switchyard
