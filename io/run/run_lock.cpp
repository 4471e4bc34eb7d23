// The lock file holds the holder for people, then machine, owner and a number that changes with every beat;
// it is empty when released. To read it, it is opened again, because network file systems look for changes
// when a file is opened.
#include "io/run/run_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "core/error.hpp"
#include "core/host.hpp"
#include "core/output.hpp"
#include "core/timer.hpp"

namespace switchyard {
namespace {

/// Differs between machines, even if all are called localhost, and between two boots of one machine.
std::string machine_id() {
    const char* file = "/proc/sys/kernel/random/boot_id";
    std::string id = exists_at(file) ? read_file(file) : "";
    id.resize(std::min(id.find('\n'), id.size()));
    return host_name() + "/" + id;
}

std::string line(const std::string& text, int number) {
    std::size_t begin = 0;
    for (int i = 0; i < number && begin != std::string::npos; ++i) {
        begin = text.find('\n', begin);
        if (begin != std::string::npos) ++begin;
    }
    return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace

RunLock::RunLock(const std::string& directory, const std::string& file) : RunLock(directory, file, Times{}) {}

RunLock::RunLock(const std::string& directory, const std::string& file, Times times)
    : directory_(directory), file_(file), times_(times) {
    fd_ = open_kept(file_);
    const bool locked = system_lock();
    const std::string seen = content(), machine = machine_id();
    const bool same_machine = line(seen, 1).rfind(machine + " ", 0) == 0;
    if (!seen.empty() && !(locked && same_machine)) wait_for_sign_of_life(seen);

    const char* job = std::getenv("SLURM_JOB_ID");
    holder_ = fmt::format("pid {} on host {}{}", ::getpid(), host_name(),
                          job ? fmt::format(" (Slurm job {})", job) : "");
    std::random_device random;
    owner_ = fmt::format("{} {:08x}{:08x}", machine, random(), random());
    // The file is not removed when the run ends, because that would race with the next run that opens it.
    require(::ftruncate(fd_, 0) == 0, "cannot write `{}` {}", file_, system_problem);
    write_beat();

    // Signals are handled by the threads that train.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { beat(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

RunLock::~RunLock() {
    {
        const std::lock_guard lock(mutex_);
        end_ = true;
    }
    ended_.notify_all();
    thread_.join();
    if (is_mine(content()) && ::ftruncate(fd_, 0) != 0)
        print_error("switchyard: warning: cannot release `{}` {}", file_, system_problem);
}

/// Returns whether the file system supports locks. Throws if another process has the lock.
bool RunLock::system_lock() {
    int status;
    do {
        status = ::flock(fd_, LOCK_EX | LOCK_NB);
    } while (status != 0 && errno == EINTR);
    if (status == 0) return true;
    if (errno == EWOULDBLOCK) refuse(line(content(), 0));
    print_error(
        "switchyard: warning: `{}` cannot be locked: {} (this file system has no locks: signs of life "
        "in that file take their place)",
        file_, system_reason);
    return false;
}

void RunLock::wait_for_sign_of_life(const std::string& seen) const {
    print_error(
        "switchyard: run directory `{}` was not released by {}; waiting {:.0f} s for a sign of life "
        "from there",
        directory_, line(seen, 0), times_.patience_s);
    const double end = seconds_now() + times_.patience_s;
    while (seconds_now() < end) {
        std::this_thread::sleep_for(std::chrono::duration<double>(times_.beat_s / 10));
        const std::string now = content();
        if (now.empty()) return;
        if (now != seen) refuse(line(now, 0));
    }
}

void RunLock::refuse(const std::string& holder) const {
    fail(
        "run directory `{}` is in use by {} (two runs would overwrite each other's checkpoints); wait for "
        "that run or choose another run.dir",
        directory_, holder.empty() ? "another process" : holder);
}

std::string RunLock::content() const {
    try {
        return read_file(file_);
    } catch (const UserError&) {
        return "";
    }
}

bool RunLock::is_mine(const std::string& content) const {
    return line(content, 1).rfind(owner_ + " ", 0) == 0;
}

void RunLock::check() const {
    const std::string now = content();
    require(now.empty() || is_mine(now),
            "run directory `{}` was taken over by {} (this process gave no sign of life for {:.0f} s, or "
            "both began in the same moment); let that run go on",
            directory_, line(now, 0), times_.patience_s);
}

/// Writes with one call and always the same length, so that readers see the whole text.
void RunLock::write_beat() {
    const std::string text = fmt::format("{}\n{} {:012}", holder_, owner_, num_beats_++);
    const auto written = ::pwrite(fd_, text.data(), text.size(), 0);
    require(num_beats_ > 1 || written == static_cast<ssize_t>(text.size()), "cannot write `{}` {}", file_,
            system_problem);
    ::fsync(fd_);  // sends it to the server of a network file system
}

void RunLock::beat() {
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, std::chrono::duration<double>(times_.beat_s), [this] { return end_; }))
        if (is_mine(content())) write_beat();
}

}  // namespace switchyard
