// _Exit rather than MPI_Abort: the main thread may be inside MPI. Launchers end the job when one
// rank exits with an error.
#include "run/watchdog.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>

#include "core/output.hpp"
#include "core/sign_of_life.hpp"
#include "core/timer.hpp"

namespace switchyard {

Watchdog::Watchdog(double timeout_s, int rank, LastWords last_words)
    : timeout_s_(timeout_s), rank_(rank), last_words_(std::move(last_words)) {
    sign_of_life("start");
    if (timeout_s_ > 0) thread_ = std::thread([this] { watch(); });
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

void Watchdog::watch() {
    std::unique_lock lock(mutex_);
    SignOfLife last;
    double silent_s = 0;
    while (!stop_) {
        last = last_sign_of_life();
        silent_s = last.waiting ? 0 : seconds_now() - last.time_s;
        if (silent_s >= timeout_s_) break;
        stopped_.wait_for(lock, std::chrono::duration<double>(timeout_s_ - silent_s));
    }
    if (stop_) return;
    const std::string message = fmt::format(
        "no progress for {:.0f} s, last event: {}{} (this rank or one it waits for is stuck; ending all "
        "ranks); look at the rank whose last event is the earliest, or raise run.hang_timeout",
        silent_s, last.doing, last.step < 0 ? "" : fmt::format(" in step {}", last.step));
    print_error("[rank {}] {}", rank_, message);
    std::signal(SIGALRM, SIG_DFL);  // ends the process should the file system hang as well
    ::alarm(8);
    try {
        last_words_(message);
    } catch (...) {  // a file system that fails is one reason to be here
    }
    // The first rank to end takes the others with it: they are to say first where they are.
    std::this_thread::sleep_for(std::chrono::seconds(3));
    std::_Exit(1);
}

}  // namespace switchyard
