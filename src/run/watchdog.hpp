// Watchdog: ends the process when it has made no progress for too long, for instance because another rank
// hangs. Its own thread makes no MPI call.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace switchyard {

class Watchdog {
  public:
    /// timeout_s 0: does nothing. `last_words` gets the message before the process ends (status 1).
    Watchdog(double timeout_s, int rank, std::function<void(const std::string&)> last_words);
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    /// A sign of life; `what` is a literal. Cheap: three relaxed stores.
    void event(const char* what, std::int64_t step);

  private:
    void watch();
    double silent_s() const;

    double timeout_s_;
    int rank_;
    std::function<void(const std::string&)> last_words_;
    std::atomic<const char*> what_{"start"};
    std::atomic<std::int64_t> step_{0};
    std::atomic<double> time_s_;
    std::mutex mutex_;
    std::condition_variable stopped_;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace switchyard
