// RunLock: at most one process uses a run directory, on one machine or on several that share a file system.
// The system's lock is used first. A sign of life in the lock file covers file systems without locks, and
// those whose locks hold on one machine only (Lustre with localflock, BeeGFS by default).
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "io/files/files.hpp"

namespace switchyard {

class RunLock {
  public:
    /// beat_s: interval of the holder's signs of life. patience_s: how long others wait for one. The values
    /// must be the same for all processes that use a directory.
    struct Times {
        double beat_s = 10;
        double patience_s = 35;
    };

    /// Takes the lock `file` of run directory `directory`. A holder that has ended, in whatever way, does not
    /// block it: on the same machine the system releases its lock; a holder on another machine that did not
    /// release it gets patience_s to give a sign of life. Throws UserError if the directory is in use (by
    /// which pid on which host).
    RunLock(const std::string& directory, const std::string& file, Times);
    /// With the default times.
    RunLock(const std::string& directory, const std::string& file);
    ~RunLock();  // releases the lock
    RunLock(const RunLock&) = delete;
    RunLock& operator=(const RunLock&) = delete;

    /// Throws UserError if another process has taken the lock. That may happen if this process was suspended
    /// for longer than patience_s, or if both started at the same moment.
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
    std::string holder_, owner_;  // the first line, for people; the second line, which is unique
    long num_beats_ = 0;
    std::mutex mutex_;
    std::condition_variable ended_;
    bool end_ = false;
    std::thread thread_;
};

}  // namespace switchyard
