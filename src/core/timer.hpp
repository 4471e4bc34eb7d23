// Time of a step by phase, measured by the back end's own points in time. Seconds spent waiting for other
// ranks are moved from their phase to Phase::communication.
#pragma once

#include <chrono>
#include <functional>
#include <utility>
#include <vector>

#include "core/call_counts.hpp"
#include "core/stamps.hpp"

namespace switchyard {

/// The host's clock, in seconds.
inline double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class PhaseTimer {
  public:
    PhaseTimer() { stamps_.stamp(0); }
    /// Forgets all laps; the first lap starts now.
    void reset() {
        laps_.clear();
        waits_.forget();
        stamps_.stamp(0);
    }
    /// Assigns the time since the last lap() or reset() to `phase`, except the waits in it.
    void lap(Phase phase) {
        laps_.push_back({phase, waits_.count()});
        stamps_.stamp(static_cast<int>(laps_.size()));
        end_counted_phase(phase);
        if (on_lap_) on_lap_(phase);
    }
    /// Collectives record here how long they stall the work (Traffic::waits).
    Waits& waits() { return waits_; }
    /// `call` is called with the phase at the end of every lap, as a sign of life for the watchdog.
    void on_lap(std::function<void(Phase)> call) { on_lap_ = std::move(call); }
    /// Seconds of `phase`; waits for the work of all laps.
    double seconds(Phase phase) const {
        double sum = 0;
        int waited = 0;
        for (int i = 0; i < static_cast<int>(laps_.size()); ++i) {
            const Lap& lap = laps_[static_cast<std::size_t>(i)];
            const double waited_s = waits_.seconds(std::exchange(waited, lap.waits), lap.waits);
            if (lap.phase == phase) sum += stamps_.seconds(i, i + 1) - waited_s;
            if (phase == Phase::communication) sum += waited_s;
        }
        return sum;
    }

  private:
    struct Lap {
        Phase phase;
        int waits;  // number of waiting spans up to its end
    };
    std::vector<Lap> laps_;
    Stamps stamps_;  // 0 is the start, then the end of each lap
    Waits waits_;
    std::function<void(Phase)> on_lap_;
};

}  // namespace switchyard
