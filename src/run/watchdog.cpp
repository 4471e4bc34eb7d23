// _Exit rather than MPI_Abort: the main thread may be inside MPI. Launchers end the job when one
// rank exits with an error.
#include "run/watchdog.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <limits>

#include "core/last_calls.hpp"
#include "core/output.hpp"
#include "core/timer.hpp"
#include "run/stop_requests.hpp"

namespace switchyard {

void Silence::look(const SignOfLife& sign, double now_s) {
    constexpr double longest_look_s = 2;
    if (sign.time_s != last_.time_s) {
        if (!sign.waiting && !last_.waiting)
            longest_s_ = std::max(longest_s_, sign.time_s - last_.time_s - stopped_s_);
        stopped_s_ = 0;
    }
    last_ = sign;
    stopped_s_ += std::max(0.0, now_s - looked_s_ - longest_look_s);
    looked_s_ = now_s;
}

double Silence::seconds() const {
    return last_.waiting ? 0 : std::max(0.0, looked_s_ - last_.time_s - stopped_s_);
}

Watchdog::Watchdog(double timeout_s, int rank, LastWords last_words)
    : timeout_s_(timeout_s), rank_(rank), last_words_(std::move(last_words)) {
    sign_of_life("start");
    thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    stopped_.notify_all();
    thread_.join();
}

/// Looks once a second. A process that was asked to end by SIGTERM and does not come to a step's end gets
/// less time: 20 s, or three times the longest silence in which it worked.
void Watchdog::watch() {
    constexpr double least_patience_s = 20, look_s = 1;
    const double limit_s = timeout_s_ > 0 ? timeout_s_ : std::numeric_limits<double>::infinity();
    std::unique_lock lock(mutex_);
    Silence silence(last_sign_of_life(), seconds_now());
    double asked_s = std::numeric_limits<double>::infinity();
    while (!stop_) {
        const double time_s = seconds_now();
        silence.look(last_sign_of_life(), time_s);
        if (termination_noted()) asked_s = std::min(asked_s, time_s);
        if (silence.seconds() >= limit_s) break;
        const double left_s = std::max(least_patience_s, 3 * silence.longest_s()) -
                              std::min(silence.seconds(), time_s - asked_s);
        if (left_s <= 0) break;
        stopped_.wait_for(
            lock, std::chrono::duration<double>(std::min({look_s, limit_s - silence.seconds(), left_s})));
    }
    if (stop_) return;
    const SignOfLife& last = silence.last();
    const std::string where = text_of(last_calls());
    const std::string message = fmt::format(
        "no progress for {:.0f} s, last event: {}{} ({}this rank or one it waits for is stuck; ending all "
        "ranks); look at the rank whose last event is the earliest, or raise run.hang_timeout",
        silence.seconds(), last.doing, last.step < 0 ? "" : fmt::format(" in step {}", last.step),
        where.empty() ? "" : where + "; ");
    print_error("[rank {}] {}", rank_, message);
    std::signal(SIGALRM, SIG_DFL);  // ends the process should the file system hang as well
    ::alarm(8);
    try {
        last_words_(message);
    } catch (...) {  // a file system that fails is one reason to be here
    }
    // The first rank to end takes the others with it, so it leaves them time to say where they are.
    std::this_thread::sleep_for(std::chrono::seconds(3));
    std::_Exit(1);
}

}  // namespace switchyard
