// WeightStage: brings the frozen weights of one block into the form that products use. Merged copies are kept
// for the step; with parallel.shard_frozen each rank prepares its slice of rows (merged, if the adapter
// merges) and the slices are gathered over dp, one block ahead of use, into two buffers.
#pragma once

#include <array>
#include <vector>

#include "model/linear.hpp"

namespace switchyard {

class WeightStage {
  public:
    WeightStage(const ModelContext&, std::vector<std::vector<Linear*>> blocks);

    /// Values have changed: every copy is out of date.
    void invalidate();
    /// Starts the gather of a block (no-op if it is there, not sharded, or outside the model).
    void prefetch(int block);
    /// linear.weight() of the block's linears is valid until acquire() of another block.
    void acquire(int block);

    /// Gathers in one step of `micro_batches` forward and backward passes over `blocks` blocks.
    static std::int64_t gathers_per_step(std::int64_t blocks, std::int64_t micro_batches);
    /// Bytes that this rank sends for them.
    double bytes_per_step(std::int64_t micro_batches) const;

  private:
    struct Buffer {
        int block = -1;
        std::vector<Pending> pending;
    };
    void prepare(Linear&, Tensor out) const;
    Buffer& buffer_of(int block) { return buffers_[block % 2]; }

    const Topology& topology_;
    Traffic& traffic_;
    bool sharded_;
    std::vector<std::vector<Linear*>> blocks_;
    std::vector<std::vector<Tensor>>
        storage_;              // per block (kept) or per buffer (sharded): one tensor a linear
    std::vector<bool> fresh_;  // merged copies of a block formed in this step
    std::array<Buffer, 2> buffers_;
};

}  // namespace switchyard
