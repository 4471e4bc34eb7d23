// The tables of SwitchLoRA for one matrix (arXiv 2406.06564, algorithm 2, sequential selection) in plain
// arrays: the candidate of each slot, frozen slots, and the two pointers of the ring.
#pragma once

#include <algorithm>
#include <vector>

namespace switchyard::reference {

struct SlotChange {
    int slot, outgoing, incoming;
    bool operator==(const SlotChange&) const = default;
};

struct SwitchRing {
    using Changes = std::vector<SlotChange>[2];  // of A and of B

    int r, c, freeze_steps;  // slots, candidates, updates for which a counterpart stays fixed
    std::vector<int> selected[2], frozen[2];  // by slot; 0: A, 1: B
    int pointer[2];

    SwitchRing(int r, int c, int freeze_steps) : r(r), c(c), freeze_steps(freeze_steps), pointer{0, r / 2} {
        for (int slot = 0; slot < r; ++slot) selected[0].push_back(c - r + slot);
        selected[1] = selected[0];
        std::rotate(selected[1].begin(), selected[1].end() - r / 2, selected[1].end());  // roll by r / 2
        for (auto& counters : frozen) counters.assign(r, 0);
    }

    /// One update has been made.
    void count_down() {
        for (auto& counters : frozen)
            for (int& left : counters) left = std::max(0, left - 1);
    }
    /// Number of slots from the pointer on that may be switched; those frozen by switches of the other side
    /// may not.
    int available() const {
        int least = c - r;
        for (int side : {0, 1}) {
            const int held = r - static_cast<int>(std::count(frozen[side].begin(), frozen[side].end(), 0));
            least = std::min(least, ((pointer[1 - side] - held - pointer[side]) % r + r) % r);
        }
        return least;
    }
    /// The counterpart of a switched slot is frozen.
    void apply(const Changes& changes) {
        for (int side : {0, 1})
            for (const SlotChange& x : changes[side]) {
                selected[side][x.slot] = x.incoming;
                frozen[1 - side][x.slot] = freeze_steps;
            }
    }
    /// Switches min(drawn, available) slots of each side.
    void advance(int drawn, Changes& changes) {
        const int k = std::min(drawn, available());
        for (int side : {0, 1}) {
            changes[side].clear();
            const int last = selected[side][(pointer[side] + r - 1) % r];
            for (int i = 0; i < k; ++i) {
                const int slot = (pointer[side] + i) % r;
                changes[side].push_back({slot, selected[side][slot], (last + 1 + i) % c});
            }
            pointer[side] = (pointer[side] + k) % r;
        }
        apply(changes);
    }
};

}  // namespace switchyard::reference
