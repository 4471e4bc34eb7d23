// RunLock: at most one process uses a run directory, on one machine or on several that share a file system.
// The system's lock comes first; a sign of life in the lock file covers file systems whose locks end at the
// machine (Lustre with localflock, BeeGFS's default) or that have none.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "io/files/files.hpp"

namespace switchyard {

class RunLock {
  public:
    /// How often the holder writes a sign of life, and how long one is waited for. Every process that uses a
    /// directory has the same values.
    struct Times {
        double beat_s = 10;
        double patience_s = 35;
    };

    /// Takes the lock `file` of run directory `directory`. A holder that ended in whatever way does not keep
    /// it: on the same machine the system frees it; a holder on another machine that did not release it gets
    /// patience_s to give a sign of life. Throws UserError: in use (by which pid on which host).
    RunLock(const std::string& directory, const std::string& file, Times);
    /// With the default times.
    RunLock(const std::string& directory, const std::string& file);
    ~RunLock();  // releases
    RunLock(const RunLock&) = delete;
    RunLock& operator=(const RunLock&) = delete;

    /// Throws UserError when another process has taken the lock meanwhile, as it may when this one was
    /// suspended for longer than patience_s, or both began in the same moment.
    void check() const;

  private:
    bool system_lock();
    void wait_for_sign_of_life(const std::string& seen) const;
    std::string content() const;
    [[noreturn]] void refuse(const std::string& holder) const;
    bool is_mine(const std::string& content) const;
    void write_beat();
    void beat();

    std::string directory_, file_;
    Times times_;
    FileDescriptor fd_;
    std::string holder_, owner_;  // first line, for people; second line, unlike any other
    long num_beats_ = 0;
    std::mutex mutex_;
    std::condition_variable ended_;
    bool end_ = false;
    std::thread thread_;
};

}  // namespace switchyard
