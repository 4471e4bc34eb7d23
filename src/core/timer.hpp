// Wall-clock time of a step by phase. Seconds waited in collectives are moved from the phase they fell in to
// Phase::communication by whoever knows them (train_step).
#pragma once

#include <array>
#include <chrono>
#include <functional>

#include "core/call_counts.hpp"

namespace switchyard {

inline double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class PhaseTimer {
  public:
    /// Forgets everything; the first lap starts now.
    void reset() {
        seconds_.fill(0);
        last_ = seconds_now();
    }
    /// The time since the last lap() or reset() belongs to `phase`, `waited_s` of it to communication.
    void lap(Phase phase, double waited_s = 0) {
        const double now = seconds_now();
        seconds_[static_cast<int>(phase)] += now - last_ - waited_s;
        seconds_[static_cast<int>(Phase::communication)] += waited_s;
        last_ = now;
        end_counted_phase(phase);
        if (on_lap_) on_lap_(phase);
    }
    /// Called at the end of every lap with its phase: a sign of life for a watchdog.
    void on_lap(std::function<void(Phase)> call) { on_lap_ = std::move(call); }
    double seconds(Phase phase) const { return seconds_[static_cast<int>(phase)]; }

  private:
    std::array<double, num_phases> seconds_{};
    double last_ = seconds_now();
    std::function<void(Phase)> on_lap_;
};

}  // namespace switchyard
