// What ends a run early or asks it to save: signals, the time limit, files touched in the run directory.
// Ranks see them at different times; they agree at step boundaries, by one small all-reduce.
#pragma once

#include <functional>
#include <string>

#include "comm/comm.hpp"
#include "core/timer.hpp"

namespace switchyard {

/// In order of precedence: when ranks saw different things, the highest counts.
enum class Stop { none, asked, terminated, wall_limit, requeue_signal };

/// For messages and status.json.
const char* reason_of(Stop);
/// Whether the run is to be started again by its batch system (exit code 75).
inline bool wants_requeue(Stop stop) {
    return stop == Stop::wall_limit || stop == Stop::requeue_signal;
}

/// What all ranks agreed on.
struct StopDecision {
    Stop stop = Stop::none;
    bool save = false;  // without stopping
};

/// From here on SIGUSR1 is noted instead of ending the process: a batch system may send it while MPI starts
/// or a checkpoint is read. StopRequests then acts on it.
void note_requeue_signals();
/// From here on SIGTERM and SIGINT are noted, too: the run has begun, and a step's end is where it stops.
/// Before, they end the process, which has nothing to lose.
void note_terminations();
/// Whether any signal was noted, and whether one that asks to terminate was.
bool signal_noted();
bool termination_noted();

/// Acts on signals that were noted. The handlers only set a flag and stay for good, so a second signal while
/// the run saves and ends changes nothing. One object a process, made before anything takes time.
class StopRequests {
  public:
    /// `start_s`: the clock at the start of the process. wall_limit_s 0: none. The files `save` and `stop`
    /// are looked for in `directory` by rank 0, at the first step and then once a second; it removes them.
    using Clock = std::function<double()>;  // seconds
    StopRequests(const Comm& world, std::string directory, double start_s, double wall_limit_s,
                 Clock clock = seconds_now);
    /// Forgets what was noted; the handlers stay.
    ~StopRequests();
    StopRequests(const StopRequests&) = delete;
    StopRequests& operator=(const StopRequests&) = delete;

    /// Collective. `needed_s`: what a further step and a save will take, as rank 0 knows it; the time limit
    /// is met by stopping before.
    StopDecision agree(double needed_s);
    /// Seconds left of the limit; infinity without one.
    double remaining_s() const;

  private:
    bool take_file(const char* name) const;
    bool time_to_look();

    Comm world_;
    std::string directory_;
    double start_s_, wall_limit_s_;
    Clock clock_;
    double next_look_s_ = 0;
};

}  // namespace switchyard
