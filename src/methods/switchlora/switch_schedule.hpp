// SwitchSchedule: which slots of one matrix take which candidates after which step. A pure function of (seed,
// step, matrix name) and its tables, the same on every rank and layout (arXiv 2406.06564, algorithm 2; ring
// as released).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace switchyard {

struct SwitchSettings {
    std::int64_t low_rank = 0, num_candidates = 0;  // r, C = min(m, n)
    double interval = 40;                           // steps between switches of a slot at the start
    double ratio = 0.1;             // share of the run after which the frequency has fallen to 0.3
    std::int64_t freeze_steps = 5;  // N updates for which the counterpart of a switched vector stays fixed
    bool random_order = false;
    std::int64_t steps = 1;  // of the run
    std::uint64_t seed = 0;

    /// Expected switches per side after step t (0-based): r / (interval e^(theta (t + 1))), theta = -ln 0.3 /
    /// (ratio T).
    double rate(std::int64_t step) const;
    std::int64_t most_at_once() const;
    /// Expected candidates visited per slot over the run, the first included; a full lap of the ring needs C
    /// / r.
    double visits_per_slot() const;
    /// Expected switches per side of the steps [step, steps): the sum of their rates.
    double switches_left(std::int64_t step) const;
};

/// The schedule that a run's configuration means for a matrix (out, in). Throws UserError when its slots
/// would be frozen most of the time.
SwitchSettings switch_settings(const Config&, std::int64_t out, std::int64_t in);

/// Slots of one side and what happens to them.
struct SideSwitch {
    std::vector<std::int32_t> slots;
    std::vector<int> outgoing, incoming;
};
struct Switch {
    SideSwitch a, b;
    std::int64_t count() const { return static_cast<std::int64_t>(a.slots.size()); }
};

class SwitchSchedule {
  public:
    SwitchSchedule() = default;
    SwitchSchedule(const SwitchSettings&, std::string matrix);

    /// The switch after the update of step `step`; tables, pointers and freeze counters are those after it.
    Switch advance(std::int64_t step);
    /// One update has used the freeze counters.
    void count_down();
    /// Candidates of side A that are active at some time of a run from step 0, by going through it until all
    /// are used or no switch is to be expected any more. Of a run so slow that neither comes within
    /// max_steps_looked_at, the rest is what is expected.
    struct CandidateUse {
        std::int64_t candidates = 0, steps = 0;  // steps: gone through
    };
    static constexpr std::int64_t max_steps_looked_at = 1000000;
    CandidateUse candidate_use() const;

    /// Per slot; side 0: A, 1: B.
    const std::vector<int>& candidates(int side) const { return candidate_[side]; }
    /// Updates left, per slot.
    const std::vector<int>& frozen(int side) const { return frozen_[side]; }

    /// Candidates, freeze counters and pointers of both sides, for checkpoints.
    std::vector<std::int64_t> state() const;
    /// Throws UserError on tables that no schedule of these settings has, and keeps its own then.
    void set_state(const std::vector<std::int64_t>&);

  private:
    std::int64_t draw_count(std::int64_t step) const;
    SideSwitch ring(int side, std::int64_t count);
    void draw_random(std::int64_t step, std::int64_t count, Switch&);
    void apply(const SideSwitch&, int side);

    SwitchSettings settings_;
    std::string matrix_;
    std::uint64_t count_key_ = 0;
    std::vector<int> candidate_[2], frozen_[2];
    std::int64_t pointer_[2] = {0, 0};
};

}  // namespace switchyard
