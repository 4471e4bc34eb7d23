// An error in the thread is kept by the writer, whose commit() throws it on all ranks.
#include "saving/background_writer.hpp"

#include <chrono>

#include "core/sign_of_life.hpp"

namespace switchyard {

BackgroundWriter::BackgroundWriter(CheckpointWriter& writer, bool held)
    : writer_(writer), held_(held), thread_([this] { work(); }) {}

BackgroundWriter::~BackgroundWriter() {
    wait();
    thread_.join();
}

void BackgroundWriter::work() {
    no_signs_of_life_from_this_thread();
    {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !held_; });
    }
    writer_.write_staged(CheckpointWriter::Threads::one);
    {
        const std::lock_guard lock(mutex_);
        done_ = true;
    }
    changed_.notify_all();
}

bool BackgroundWriter::done() const {
    const std::lock_guard lock(mutex_);
    return done_;
}

void BackgroundWriter::wait() {
    std::unique_lock lock(mutex_);
    held_ = false;
    changed_.notify_all();
    std::uint64_t before = 0;
    while (!done_) {
        changed_.wait_for(lock, std::chrono::milliseconds(200));
        const std::uint64_t bytes = writer_.written().bytes;
        if (bytes != before) sign_of_life("writing a checkpoint");
        before = bytes;
    }
}

}  // namespace switchyard
