// Two modes: merged copies that are kept (local frozen weights), and gathers into two buffers (sharded frozen
// weights).
#include "model/weight_stage.hpp"

#include "kernels/elementwise.hpp"

namespace switchyard {

WeightStage::WeightStage(const ModelContext& context, std::vector<std::vector<Linear*>> blocks)
    : topology_(context.topology),
      traffic_(context.traffic),
      sharded_(context.config.parallel.shard_frozen && context.topology.dp_size() > 1),
      blocks_(std::move(blocks)),
      fresh_(blocks_.size(), false) {
    const std::size_t copies = sharded_ ? std::min<std::size_t>(2, blocks_.size()) : blocks_.size();
    for (std::size_t copy = 0; copy < copies; ++copy) {
        auto& tensors = storage_.emplace_back();
        for (Linear* linear : blocks_[copy]) {
            Tensor& tensor = tensors.emplace_back();
            if (!linear->frozen()) continue;
            const Shape slice = linear->base().words.hi.shape();
            if (sharded_)
                tensor = context.arena.take(MemoryClass::copies, context.dtype,
                                            {slice[0] * context.topology.dp_size(), slice[1]});
            else if (linear->adapter()->merged())
                tensor = context.arena.take(MemoryClass::copies, context.dtype, slice);
        }
    }
}

void WeightStage::invalidate() {
    fresh_.assign(blocks_.size(), false);
    for (Buffer& buffer : buffers_) buffer = {};
}

void WeightStage::prepare(Linear& linear, Tensor out) const {
    const FrozenBase& base = linear.base();
    if (base.slice.local == 0) return;
    if (linear.adapter()->merged())
        linear.adapter()->merge(base.local_rows(), base.slice.begin, out.rows(0, base.slice.local));
    else
        kernels::copy(base.words.hi, out);
}

void WeightStage::prefetch(int block) {
    if (!sharded_ || block < 0 || block >= static_cast<int>(blocks_.size())) return;
    Buffer& buffer = buffer_of(block);
    if (buffer.block == block) return;
    buffer.pending.clear();
    buffer.block = block;
    for (std::size_t i = 0; i < blocks_[block].size(); ++i) {
        Linear& linear = *blocks_[block][i];
        if (!linear.frozen()) continue;
        const Tensor all = storage_[block % 2][i];
        const std::int64_t rows = linear.base().words.hi.dim(0);
        const Tensor mine = all.rows(topology_.dp_rank() * rows, rows);
        prepare(linear, mine);
        buffer.pending.push_back(start_all_gather(topology_.dp, mine, all, traffic_, TrafficGroup::frozen));
    }
}

void WeightStage::acquire(int block) {
    if (sharded_) {
        prefetch(block);
        Buffer& buffer = buffer_of(block);
        for (Pending& pending : buffer.pending) pending.wait();
        buffer.pending.clear();
    }
    for (std::size_t i = 0; i < blocks_[block].size(); ++i) {
        Linear& linear = *blocks_[block][i];
        if (!linear.frozen()) continue;
        if (sharded_) {
            linear.set_weight(storage_[block % 2][i].rows(0, linear.out().padded));
        } else if (linear.adapter()->merged()) {
            const Tensor copy = storage_[block][i];
            if (!fresh_[block]) prepare(linear, copy);
            linear.set_weight(copy);
        }
    }
    fresh_[block] = true;
}

double WeightStage::bytes_per_step(std::int64_t micro_batches) const {
    if (!sharded_) return 0;
    double block_bytes = 0;  // all blocks have the same shapes
    for (const Tensor& all : storage_.front())
        if (!all.empty())
            block_bytes += all_gather_bytes(static_cast<double>(all.bytes()), topology_.dp_size());
    return block_bytes *
           static_cast<double>(gathers_per_step(static_cast<std::int64_t>(blocks_.size()), micro_batches));
}

std::int64_t WeightStage::gathers_per_step(std::int64_t blocks, std::int64_t micro_batches) {
    std::array<std::int64_t, 2> held{-1, -1};
    std::int64_t gathers = 0;
    const auto visit = [&](std::int64_t block) {
        if (block < 0 || block >= blocks || held[block % 2] == block) return;
        held[block % 2] = block;
        ++gathers;
    };
    for (std::int64_t pass = 0; pass < micro_batches; ++pass) {
        for (std::int64_t b = 0; b < blocks; ++b) visit(b), visit(b + 1);
        for (std::int64_t b = blocks - 1; b >= 0; --b) visit(b), visit(b - 1);
    }
    return gathers;
}

}  // namespace switchyard
