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
#include "core/sign_of_life.hpp"
#include "core/timer.hpp"
#include "run/stop_requests.hpp"

namespace switchyard {

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
    SignOfLife last = last_sign_of_life();
    double silent_s = 0, longest_s = 0, asked_s = std::numeric_limits<double>::infinity();
    while (!stop_) {
        const SignOfLife now = last_sign_of_life();
        if (!now.waiting && !last.waiting) longest_s = std::max(longest_s, now.time_s - last.time_s);
        last = now;
        const double time_s = seconds_now();
        if (termination_noted()) asked_s = std::min(asked_s, time_s);
        silent_s = last.waiting ? 0 : time_s - last.time_s;
        if (silent_s >= limit_s) break;
        const double left_s =
            std::max(least_patience_s, 3 * longest_s) - std::min(silent_s, time_s - asked_s);
        if (left_s <= 0) break;
        stopped_.wait_for(lock,
                          std::chrono::duration<double>(std::min({look_s, limit_s - silent_s, left_s})));
    }
    if (stop_) return;
    const std::string where = text_of(last_calls());
    const std::string message = fmt::format(
        "no progress for {:.0f} s, last event: {}{} ({}this rank or one it waits for is stuck; ending all "
        "ranks); look at the rank whose last event is the earliest, or raise run.hang_timeout",
        silent_s, last.doing, last.step < 0 ? "" : fmt::format(" in step {}", last.step),
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
