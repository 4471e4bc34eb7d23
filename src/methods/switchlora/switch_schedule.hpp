// SwitchSchedule: which slots of a matrix take which candidates after which step. A pure function of (seed,
// step, matrix name) and its tables, and therefore the same on every rank and layout (arXiv 2406.06564,
// algorithm 2; the ring is that of the released code).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace switchyard {

struct SwitchSettings {
    std::int64_t low_rank = 0, num_candidates = 0;  // r, C = min(m, n)
    double interval = 40;                           // steps between switches of a slot at the start
    double ratio = 0.1;  // share of the run after which the frequency has fallen to 0.3 of its start
    std::int64_t freeze_steps = 5;  // N updates during which the counterpart of a switched vector is fixed
    bool random_order = false;
    std::int64_t steps = 1;  // number of steps of the run
    std::uint64_t seed = 0;

    /// Expected switches per side after step t (0-based): r / (interval e^(theta (t + 1))), theta = -ln 0.3 /
    /// (ratio T).
    double rate(std::int64_t step) const;
    std::int64_t most_at_once() const;
    /// Expected number of candidates that a slot visits during the run, including the first; a full lap of
    /// the ring takes C / r.
    double visits_per_slot() const;
    /// Expected switches per side in the steps [step, steps): the sum of their rates.
    double switches_left(std::int64_t step) const;
};

/// The settings of a run's configuration for a matrix (out, in). Throws UserError if its slots would be
/// frozen most of the time.
SwitchSettings switch_settings(const Config&, std::int64_t out, std::int64_t in);

/// Slots of one side, and their old and new candidates.
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

    /// Returns the switch after the update of step `step`. Tables, pointers and freeze counters are then
    /// those after it.
    Switch advance(std::int64_t step);
    /// Counts one update off the freeze counters.
    void count_down();
    /// The number of A-side candidates that are active at some time of a run from step 0. The schedule is
    /// walked until all are used or no more switches can be expected; if neither happens within
    /// max_steps_looked_at, the expected number is added for the rest.
    struct CandidateUse {
        std::int64_t candidates = 0, steps = 0;  // steps: those that were walked
    };
    static constexpr std::int64_t max_steps_looked_at = 1000000;
    CandidateUse candidate_use() const;

    /// The candidate of each slot; side 0: A, 1: B.
    const std::vector<int>& candidates(int side) const { return candidate_[side]; }
    /// The number of updates for which each slot stays frozen.
    const std::vector<int>& frozen(int side) const { return frozen_[side]; }

    /// Candidates, freeze counters and pointers of both sides, for checkpoints.
    std::vector<std::int64_t> state() const;
    /// Throws UserError on tables that no schedule with these settings has; the schedule is then unchanged.
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
