// _Exit rather than MPI_Abort: the main thread may be inside MPI. Launchers end a job one of whose ranks ends
// so.
#include "run/watchdog.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "core/timer.hpp"

namespace switchyard {

Watchdog::Watchdog(double timeout_s, int rank, std::function<void(const std::string&)> last_words)
    : timeout_s_(timeout_s), rank_(rank), last_words_(std::move(last_words)), time_s_(seconds_now()) {
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

void Watchdog::event(const char* what, std::int64_t step) {
    what_.store(what, std::memory_order_relaxed);
    step_.store(step, std::memory_order_relaxed);
    time_s_.store(seconds_now(), std::memory_order_relaxed);
}

double Watchdog::silent_s() const {
    return seconds_now() - time_s_.load(std::memory_order_relaxed);
}

void Watchdog::watch() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
        const double left = timeout_s_ - silent_s();
        if (left <= 0) break;
        stopped_.wait_for(lock, std::chrono::duration<double>(left));
    }
    if (stop_) return;
    const std::string message = fmt::format(
        "no progress for {:.0f} s, last event: {} in step {} (this rank or one it waits for is stuck; ending "
        "all "
        "ranks) look at the rank whose last event is the earliest, or raise run.hang_timeout",
        silent_s(), what_.load(), step_.load());
    fmt::print(stderr, "[rank {}] {}\n", rank_, message);
    std::fflush(nullptr);
    std::signal(SIGALRM, SIG_DFL);  // ends the process should the file system hang as well
    ::alarm(8);
    last_words_(message);
    // The first rank to end takes the others with it: they are to say first where they are.
    std::this_thread::sleep_for(std::chrono::seconds(3));
    std::_Exit(1);
}

}  // namespace switchyard
