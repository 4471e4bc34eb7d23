// Watchdog: ends the process when it has given no sign of life (core/sign_of_life.hpp) for too long, for
// instance because another rank hangs; sooner where SIGTERM was noted. Its own thread makes no MPI call.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace switchyard {

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
