// BackgroundWriter: the thread that writes a staged checkpoint while training goes on. It makes no MPI and no
// HDF5 call, works on one core, and gives no signs of life: those are the main thread's.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "io/checkpoint/checkpoint_file.hpp"

namespace switchyard {

class BackgroundWriter {
  public:
    /// writer: staged; outlives this. held: the thread begins only when somebody waits for it (for tests).
    BackgroundWriter(CheckpointWriter& writer, bool held);
    /// Waits until all is written.
    ~BackgroundWriter();
    BackgroundWriter(const BackgroundWriter&) = delete;
    BackgroundWriter& operator=(const BackgroundWriter&) = delete;

    bool done() const;
    /// Waits until all is written. Bytes written meanwhile count as signs of life; a thread that writes none
    /// is left to the watchdog.
    void wait();

  private:
    void work();

    CheckpointWriter& writer_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool held_ = false, done_ = false;
    std::thread thread_;
};

}  // namespace switchyard
