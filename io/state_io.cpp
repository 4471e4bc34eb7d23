// Distributed rows are brought into contiguous blocks, one a rank, before a write, and back after a read.
#include "io/state_io.hpp"

#include <algorithm>
#include <cstring>

#include "comm/collectives.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

/// out (cols, rows) <- in (rows, cols), elements of `bytes` bytes.
std::vector<std::byte> transposed(const std::vector<std::byte>& in, std::int64_t rows, std::int64_t cols,
                                  std::size_t bytes) {
    std::vector<std::byte> out(in.size());
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < cols; ++j)
            std::memcpy(out.data() + (j * rows + i) * bytes, in.data() + (i * cols + j) * bytes, bytes);
    return out;
}

/// Rank p of the group takes rows [p b, (p + 1) b) of the valid ones for the file.
struct Blocks {
    std::int64_t block, begin, count;
    std::vector<int> holder;  // per row
    Blocks(const DistributedRows& d) {
        const int ranks = d.group->size();
        block = std::max<std::int64_t>(1, (d.rows + ranks - 1) / ranks);
        begin = std::min(d.rows, d.group->rank() * block);
        count = std::min(d.rows, begin + block) - begin;
        holder.resize(d.rows);
        for (std::int64_t row = 0; row < d.rows; ++row) holder[row] = static_cast<int>(row / block);
    }
    Shard shard(const std::string& path, const DistributedRows& d) const {
        Shard s{path, d.global, d.row0 + begin, d.col0, count, d.cols, d.replica};
        if (d.transposed) {
            std::swap(s.row0, s.col0);
            std::swap(s.rows, s.cols);
        }
        return s;
    }
};

std::uint64_t stored_bytes(const Shape& global, DType dtype) {
    return static_cast<std::uint64_t>(global.size()) * size_of(dtype);
}

}  // namespace

void StateIo::tensor(const std::string& path, const Shard& shard, Tensor values) {
    on_dataset_();
    if (writer_)
        writer_->write(path, shard, values);
    else if (reader_)
        reader_->read(path, shard, values);
    else
        *counted_bytes_ += stored_bytes(shard.global, values.dtype());
}

void StateIo::rows(const std::string& path, const DistributedRows& d, const RowAccess& access) {
    if (counted_bytes_) {
        *counted_bytes_ += stored_bytes(d.global, access.dtype);
        return;
    }
    on_dataset_();
    const Blocks blocks(d);
    const std::size_t element = size_of(access.dtype), row_bytes = element * static_cast<std::size_t>(d.cols);
    std::vector<int> owner(d.owner->begin(), d.owner->begin() + d.rows);
    std::vector<std::int32_t> held;
    for (std::int32_t row : d.held)
        if (row < d.rows) held.push_back(row);
    std::vector<std::byte> mine(held.size() * row_bytes),
        block(static_cast<std::size_t>(blocks.count) * row_bytes);
    const Shard shard = blocks.shard(path, d);
    const Shape local = shard.global.rank() == 2 ? Shape{shard.rows, shard.cols} : Shape{shard.rows};
    Traffic uncounted;

    if (writer_) {
        for (std::size_t i = 0; i < held.size(); ++i) access.get(held[i], mine.data() + i * row_bytes);
        exchange_rows(*d.group, owner, blocks.holder, mine.data(), block.data(), row_bytes, uncounted,
                      TrafficGroup::other);
        if (d.transposed) block = transposed(block, blocks.count, d.cols, element);
        writer_->write(path, shard, Tensor{block.data(), access.dtype, local});
        return;
    }
    reader_->read(path, shard, Tensor{block.data(), access.dtype, local});
    if (d.transposed) block = transposed(block, d.cols, blocks.count, element);
    exchange_rows(*d.group, blocks.holder, owner, block.data(), mine.data(), row_bytes, uncounted,
                  TrafficGroup::other);
    for (std::size_t i = 0; i < held.size(); ++i) access.set(held[i], mine.data() + i * row_bytes);
}

void StateIo::integers(const std::string& path, std::vector<std::int64_t>& values, int world_rank) {
    const auto count = static_cast<std::int64_t>(values.size());
    const Shard shard{path, {count}, 0, 0, count, 1, world_rank};
    tensor(path, shard, Tensor{values.data(), DType::i64, {count}});
}

void StateIo::attribute(const std::string& object, const std::string& key, std::int64_t& value) {
    if (writer_)
        writer_->attribute(object, key, value);
    else if (reader_)
        value = std::get<std::int64_t>(reader_->attribute(object, key));
}

void StateIo::note(const std::string& object, const std::string& key, const Attribute& value) {
    if (writer_) writer_->attribute(object, key, value);
}

}  // namespace switchyard
