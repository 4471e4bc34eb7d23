// WeightStage: brings the frozen weights of a block into the form that products use. Merged copies are kept
// for the step. With parallel.shard_frozen each rank prepares its slice of rows (merged, if the adapter
// merges), and the slices are gathered over dp, one block ahead of use, into two buffers.
#pragma once

#include <array>
#include <vector>

#include "model/linear.hpp"

namespace switchyard {

class WeightStage {
  public:
    WeightStage(const ModelContext&, std::vector<std::vector<Linear*>> blocks);

    /// To be called when values have changed: every copy is out of date.
    void invalidate();
    /// Starts the gather of a block. No effect if the block is present, not sharded, or outside the model.
    void prefetch(int block);
    /// Until acquire() of another block, linear.weight() of this block's linears is valid.
    void acquire(int block);

    /// The number of gathers in a step of `micro_batches` forward and backward passes over `blocks` blocks.
    static std::int64_t gathers_per_step(std::int64_t blocks, std::int64_t micro_batches);
    /// Bytes that this rank sends for these gathers.
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
        storage_;              // per block (kept) or per buffer (sharded): one tensor for each linear
    std::vector<bool> fresh_;  // the merged copies of a block were formed in this step
    std::array<Buffer, 2> buffers_;
};

}  // namespace switchyard
