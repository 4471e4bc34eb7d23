// Signal flags must be global, because handlers get no argument.
#include "run/stop_requests.hpp"

#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>

#include "comm/collectives.hpp"

namespace switchyard {
namespace {

volatile std::sig_atomic_t requeue_seen = 0, terminate_seen = 0;

void note_signal(int signal) {
    (signal == SIGUSR1 ? requeue_seen : terminate_seen) = 1;
}

void handle(int signal, void (*handler)(int)) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
}

}  // namespace

const char* reason_of(Stop stop) {
    constexpr const char* reasons[] = {"", "stop file", "SIGTERM or SIGINT", "run.wall_limit", "SIGUSR1"};
    return reasons[static_cast<int>(stop)];
}

void note_requeue_signals() {
    handle(SIGUSR1, note_signal);
}

void note_terminations() {
    for (int signal : {SIGTERM, SIGINT}) handle(signal, note_signal);
}

bool signal_noted() {
    return requeue_seen || terminate_seen;
}

bool termination_noted() {
    return terminate_seen;
}

StopRequests::StopRequests(const Comm& world, std::string directory, double start_s, double wall_limit_s,
                           Clock clock)
    : world_(world),
      directory_(std::move(directory)),
      start_s_(start_s),
      wall_limit_s_(wall_limit_s),
      clock_(std::move(clock)) {
    note_requeue_signals();
}

StopRequests::~StopRequests() {
    requeue_seen = 0;
    terminate_seen = 0;
}

bool StopRequests::take_file(const char* name) const {
    return ::unlink((directory_ + "/" + name).c_str()) == 0;
}

/// A look is a request to the file system of the run directory, which a step of milliseconds must not wait
/// for.
bool StopRequests::time_to_look() {
    constexpr double interval_s = 1;
    const double now = clock_();
    if (now < next_look_s_) return false;
    next_look_s_ = now + interval_s;
    return true;
}

double StopRequests::remaining_s() const {
    if (wall_limit_s_ <= 0) return std::numeric_limits<double>::infinity();
    return wall_limit_s_ - (clock_() - start_s_);
}

StopDecision StopRequests::agree(double needed_s) {
    Stop stop = Stop::none;
    bool save = false;
    if (world_.rank() == 0) {  // one clock and one view of the file system for all
        if (time_to_look()) {
            if (take_file("stop")) stop = Stop::asked;
            save = take_file("save");
        }
        if (remaining_s() < needed_s) stop = Stop::wall_limit;
    }
    if (terminate_seen && stop < Stop::terminated) stop = Stop::terminated;
    if (requeue_seen) stop = Stop::requeue_signal;
    // Stopping saves anyway, so the maximum may drop the request to save that comes with a lower value.
    const int mine = 2 * static_cast<int>(stop) + (save ? 1 : 0);
    const int agreed = static_cast<int>(all_reduce_max(world_, mine));
    return {static_cast<Stop>(agreed / 2), agreed % 2 == 1};
}

}  // namespace switchyard
