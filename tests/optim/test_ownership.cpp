// The homes of candidate vectors and slots: balance over ranks, rotation over a lap, dense rows in blocks.
// BACK ENDS: cpu. Bookkeeping of the host alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "optim/ownership.hpp"

namespace switchyard {
namespace {

struct RingCase {
    std::int64_t low_rank, num_candidates;
    int ranks;
};

/// Low ranks below, at and above the number of ranks; whole laps and partial ones.
std::vector<RingCase> ring_cases() {
    std::vector<RingCase> all;
    for (int ranks : {1, 2, 3, 4, 5, 8, 12, 16})
        for (std::int64_t r : {1, 2, 3, 5, 6, 7, 8, 16, 31})
            for (std::int64_t c : {r + 1, 2 * r, 2 * r + 1, 3 * r, 4 * r - 1, 4 * r})
                if (c > r) all.push_back({r, c, ranks});
    return all;
}

/// Number of slots per owner in the window of the ring that starts at `first`.
std::vector<int> load(const RingCase& x, const HomeRule& rule, std::int64_t first) {
    std::vector<int> slots(x.ranks, 0);
    for (std::int64_t i = 0; i < x.low_rank; ++i) ++slots[rule.home((first + i) % x.num_candidates)];
    return slots;
}

TEST(OwnershipTest, HomesFollowTheFormula) {
    const HomeRule rule{5, 12, true, 4};
    for (int c = 0; c < 40; ++c) EXPECT_EQ(rule.home(c), (c % 5 + c / 5 + 12) % 4);
    const HomeRule fixed{5, 12, false, 4};
    for (int c = 0; c < 40; ++c) EXPECT_EQ(fixed.home(c), (c % 5 + 12) % 4);
}

TEST(OwnershipTest, NoOwnerHasMoreThanOneSlotAboveItsShareOfAWindow) {
    for (const RingCase& x : ring_cases())
        for (bool rotate : {true, false}) {
            const HomeRule rule{x.low_rank, 3, rotate, x.ranks};
            const bool whole_laps = x.num_candidates % x.low_rank == 0;
            const std::int64_t share = (x.low_rank + x.ranks - 1) / x.ranks;
            for (std::int64_t first = 0; first < x.num_candidates; ++first) {
                const std::vector<int> slots = load(x, rule, first);
                ASSERT_LE(*std::max_element(slots.begin(), slots.end()),
                          share + (rotate || !whole_laps ? 1 : 0))
                    << "r " << x.low_rank << " C " << x.num_candidates << " P " << x.ranks << " rotate "
                    << rotate << " window " << first;
            }
        }
}

TEST(OwnershipTest, SidesTogetherAreEven) {
    for (int ranks : {2, 3, 4, 6, 8, 16})
        for (std::int64_t r : {3, 6, 7, 8, 15, 16, 31, 32, 128}) {
            const RingCase x{r, 4 * r, ranks};
            const std::int64_t step = stagger_step(ranks), sides = 14 * ranks;
            EXPECT_EQ(std::gcd(step, static_cast<std::int64_t>(ranks)), 1);
            for (std::int64_t first = 0; first < x.num_candidates; ++first) {
                std::vector<int> total(ranks, 0);
                for (std::int64_t side = 0; side < sides; ++side) {
                    const std::vector<int> slots = load(x, {r, side * step, true, ranks}, first);
                    for (int p = 0; p < ranks; ++p) total[p] += slots[p];
                }
                for (int p = 0; p < ranks; ++p)
                    ASSERT_EQ(total[p], sides * r / ranks)
                        << "r " << r << " P " << ranks << " window " << first;
            }
        }
    EXPECT_EQ(stagger_step(8), 5) << "nearest to 8 / 1.618 without a common factor";
    EXPECT_EQ(stagger_step(1), 1);
}

TEST(OwnershipTest, AShardVisitsEveryRankThatALapReaches) {
    for (const RingCase& x : ring_cases()) {
        if (x.num_candidates % x.low_rank != 0) continue;
        const std::int64_t laps = x.num_candidates / x.low_rank;
        for (bool rotate : {true, false}) {
            const HomeRule rule{x.low_rank, 3, rotate, x.ranks};
            for (std::int64_t start = 0; start < x.low_rank; ++start) {
                std::set<int> visited;  // at each switch a slot goes from candidate c to c + r
                for (std::int64_t c = start, i = 0; i < laps; ++i, c = (c + x.low_rank) % x.num_candidates)
                    visited.insert(rule.home(c));
                ASSERT_EQ(static_cast<std::int64_t>(visited.size()),
                          rotate ? std::min<std::int64_t>(x.ranks, laps) : 1)
                    << "r " << x.low_rank << " C " << x.num_candidates << " P " << x.ranks;
            }
        }
    }
}

TEST(OwnershipTest, SlotsAreOwnedByTheHomesOfTheirCandidates) {
    const Comm group = Comm::imaginary(1, 3);
    const HomeRule rule{4, 5, true, 3};
    const RowOwners owners = slot_owners(group, rule, {7, 0, 11, 4});
    EXPECT_EQ(owners.group, &group);
    EXPECT_EQ(owners.owner, (std::vector<int>{rule.home(7), rule.home(0), rule.home(11), rule.home(4)}));
}

TEST(OwnershipTest, DenseRowsAreOwnedInBlocks) {
    const Comm group = Comm::imaginary(0, 4);
    EXPECT_EQ(block_owners(group, 10).owner, (std::vector<int>{0, 0, 0, 1, 1, 1, 2, 2, 2, 3}));
    EXPECT_EQ(block_owners(group, 2).owner, (std::vector<int>{0, 1}));
    EXPECT_EQ(block_owners(group, 0).owner, std::vector<int>{});
}

TEST(OwnershipTest, GradientsThatAddUpOverTpAreOwnedOverTheWorld) {
    const Topology grid = Topology::imaginary(6, 3, 4), flat = Topology::imaginary(6, 1, 4);
    EXPECT_EQ(&owner_group(grid, TpGradient::partial), &grid.world);
    EXPECT_EQ(&owner_group(grid, TpGradient::own), &grid.dp);
    EXPECT_EQ(&owner_group(grid, TpGradient::same), &grid.dp);
    EXPECT_EQ(&owner_group(flat, TpGradient::partial), &flat.dp);
}

}  // namespace
}  // namespace switchyard
