// SavePlan: what saving a checkpoint takes of ranks, memory and the file system. Pure arithmetic on its bytes
// (docs/checkpoints.md).
#pragma once

#include <cstdint>

#include "config/config.hpp"

namespace switchyard {

struct SavePlan {
    std::uint64_t bytes = 0;                        // of datasets; a file has a little more
    std::uint64_t rank_bytes = 0, rank_writes = 0;  // of a rank, in the mean; rounded up
    std::uint64_t longest_write = 0;
    std::uint64_t memory = 0;  // of a rank while it saves in the background, at most; 0: in the foreground

    /// How long all ranks write; `rate`: of the file system, B/s.
    double seconds(double rate) const { return static_cast<double>(bytes) / rate; }
};

SavePlan plan_save(const Config&, std::uint64_t checkpoint_bytes, int ranks);

}  // namespace switchyard
