// Watchdog: ends the process when it has given no sign of life (core/sign_of_life.hpp) for too long, for
// instance because another rank hangs; sooner where SIGTERM was noted. Its own thread makes no MPI call.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "core/sign_of_life.hpp"

namespace switchyard {

/// How long a process has given no sign of life, for who looks about once a second. Time in which nobody
/// looked does not count: then the process was stopped, by Slurm's `scontrol suspend` or a machine that
/// slept.
class Silence {
  public:
    /// Times are those of seconds_now().
    Silence(const SignOfLife& last, double now_s) : last_(last), looked_s_(now_s) {}
    void look(const SignOfLife&, double now_s);
    const SignOfLife& last() const { return last_; }
    /// 0 while it waits for other ranks.
    double seconds() const;
    /// The longest silence in which it worked.
    double longest_s() const { return longest_s_; }

  private:
    SignOfLife last_;
    double looked_s_, longest_s_ = 0;
    double stopped_s_ = 0;  // since the last sign
};

class Watchdog {
  public:
    using LastWords = std::function<void(const std::string&)>;

    /// timeout_s 0: no limit. `last_words` gets the message before the process ends (status 1).
    Watchdog(
        double timeout_s, int rank, LastWords last_words = [](const std::string&) {});
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

  private:
    void watch();

    double timeout_s_;
    int rank_;
    LastWords last_words_;
    std::mutex mutex_;
    std::condition_variable stopped_;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace switchyard
