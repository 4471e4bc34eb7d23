// A back end's record of the blocks of memory that it gave: what it owns, how much now and at most.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <mutex>

namespace switchyard::backend {

class MemoryBlocks {
  public:
    void add(const void* start, std::size_t bytes) {
        const std::lock_guard lock(mutex_);
        blocks_[static_cast<const std::byte*>(start)] = bytes;
        used_ += bytes;
        peak_ = std::max(peak_, used_);
    }
    void remove(const void* start) {
        const std::lock_guard lock(mutex_);
        const auto found = blocks_.find(static_cast<const std::byte*>(start));
        if (found == blocks_.end()) return;
        used_ -= found->second;
        blocks_.erase(found);
    }
    /// True if all of [start, start + bytes) lies in one block.
    bool own(const void* start, std::size_t bytes) const {
        const std::lock_guard lock(mutex_);
        const auto* first = static_cast<const std::byte*>(start);
        auto found = blocks_.upper_bound(first);
        if (found == blocks_.begin()) return false;
        --found;
        return first + bytes <= found->first + found->second;
    }
    std::size_t used() const {
        const std::lock_guard lock(mutex_);
        return used_;
    }
    std::size_t peak() const {
        const std::lock_guard lock(mutex_);
        return peak_;
    }
    void reset_peak() {
        const std::lock_guard lock(mutex_);
        peak_ = used_;
    }

  private:
    mutable std::mutex mutex_;
    std::map<const std::byte*, std::size_t> blocks_;  // by their first byte
    std::size_t used_ = 0, peak_ = 0;
};

}  // namespace switchyard::backend
