// Distributed rows are brought into contiguous blocks, one a rank, before a write, and back after a read.
#include "io/checkpoint/state_io.hpp"

#include <algorithm>
#include <limits>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "io/checkpoint/stored_values.hpp"

namespace switchyard {

/// Rows of this rank in one piece of a dataset.
struct StateIo::Piece {
    Shard shard;                     // what it reads or writes
    std::int64_t count = 0;          // rows of it, before transposition
    std::vector<std::int32_t> held;  // ascending
    std::vector<int> owner, holder;  // of each row of the piece, all ranks' together, ascending
};

namespace {

constexpr std::int64_t piece_bytes = 8 << 20;  // of a rank's block, at a time

template <class Bits>
void transpose(const std::byte* in, std::byte* out, std::int64_t rows, std::int64_t cols) {
    constexpr std::int64_t tile = 16;
    const auto* from = reinterpret_cast<const Bits*>(in);
    auto* to = reinterpret_cast<Bits*>(out);
    for (std::int64_t i0 = 0; i0 < rows; i0 += tile)
        for (std::int64_t j = 0; j < cols; ++j)
            for (std::int64_t i = i0; i < std::min(rows, i0 + tile); ++i)
                to[j * rows + i] = from[i * cols + j];
}

/// out (cols, rows) <- in (rows, cols)
void transpose(const std::byte* in, std::byte* out, std::int64_t rows, std::int64_t cols,
               std::size_t element_bytes) {
    internal_check(element_bytes == 4 || element_bytes == 8, "transpose of {}-byte values", element_bytes);
    (element_bytes == 4 ? transpose<std::uint32_t> : transpose<std::uint64_t>)(in, out, rows, cols);
}

/// Rank p of the group has the valid rows [p b, (p + 1) b) for the file, in pieces from their beginnings.
/// Where a dataset's rows are cut (by column, or transposed), one piece holds all.
class Blocks {
  public:
    /// How many pieces follows from what all ranks of the world know alike.
    Blocks(const DistributedRows& d, std::size_t element_bytes)
        : d_(d), block_(share(d.rows)), longest_(share(static_cast<std::int64_t>(d.owner->size()))) {
        const std::int64_t cols = d.global.rank() == 2 ? d.global[1] : 1;
        const std::int64_t row_bytes = d.width * static_cast<std::int64_t>(element_bytes);
        const bool whole_rows = !d.transposed && d.width >= cols;
        step_ = whole_rows ? std::clamp<std::int64_t>(piece_bytes / row_bytes, 1, longest_) : longest_;
    }
    std::int64_t num_pieces() const { return (longest_ + step_ - 1) / step_; }

    StateIo::Piece piece(const std::string& path, std::int64_t number) const {
        StateIo::Piece piece;
        const auto range = [&](int rank) {
            const std::int64_t end = std::min(d_.rows, (rank + 1) * block_);
            const std::int64_t begin = std::min(end, rank * block_ + number * step_);
            return std::pair(begin, std::min(end, begin + step_));
        };
        for (int rank = 0; rank < d_.group->size(); ++rank) {
            const auto [begin, end] = range(rank);
            piece.owner.insert(piece.owner.end(), d_.owner->begin() + begin, d_.owner->begin() + end);
            piece.holder.insert(piece.holder.end(), end - begin, rank);
            const auto first = std::lower_bound(d_.held.begin(), d_.held.end(), begin);
            piece.held.insert(piece.held.end(), first, std::lower_bound(first, d_.held.end(), end));
        }
        const auto [begin, end] = range(d_.group->rank());
        piece.count = end - begin;
        piece.shard = {path, d_.global, d_.row0 + begin, d_.col0, piece.count, d_.cols, d_.replica};
        if (d_.transposed) {
            std::swap(piece.shard.row0, piece.shard.col0);
            std::swap(piece.shard.rows, piece.shard.cols);
        }
        return piece;
    }

  private:
    std::int64_t share(std::int64_t rows) const {
        return std::max<std::int64_t>(1, (rows + d_.group->size() - 1) / d_.group->size());
    }
    const DistributedRows& d_;
    std::int64_t block_, longest_, step_;
};

Shape local_shape(const Shard& shard) {
    return shard.global.rank() == 2 ? Shape{shard.rows, shard.cols} : Shape{shard.rows};
}

std::uint64_t stored_bytes(const Shape& global, DType dtype) {
    return static_cast<std::uint64_t>(global.size()) * size_of(stored_dtype(dtype));
}

}  // namespace

void StateIo::tensor(const std::string& path, const Shard& shard, Tensor values) {
    if (counted_bytes_) {
        *counted_bytes_ += stored_bytes(shard.global, values.dtype());
        return;
    }
    writer_ ? writer_->write(path, shard, values) : reader_->read(path, shard, values);
}

void StateIo::rows(const std::string& path, const DistributedRows& d, const RowAccess& access) {
    if (counted_bytes_) {
        *counted_bytes_ += stored_bytes(d.global, access.dtype);
        return;
    }
    const Blocks blocks(d, size_of(access.dtype));
    Pieces so_far;
    for (std::int64_t number = 0; number < blocks.num_pieces(); ++number) {
        const Piece piece = blocks.piece(path, number);
        if (writer_)
            write_piece(path, d, access, piece, so_far);
        else
            read_piece(path, d, access, piece, so_far);
    }
    writer_ ? writer_->finish(path, so_far) : reader_->finish(path, so_far);
}

void StateIo::write_piece(const std::string& path, const DistributedRows& d, const RowAccess& access,
                          const Piece& piece, Pieces& so_far) {
    const std::size_t element = size_of(access.dtype), row_bytes = element * static_cast<std::size_t>(d.cols);
    std::byte* const rows = rows_.of(piece.held.size() * row_bytes);
    transfer_.get(access.from, piece.held, d.cols, access.dtype, rows);
    std::byte* block = rows;
    if (d.group->size() > 1) {
        block = block_.of(piece.count * row_bytes);
        Traffic uncounted;
        exchange_rows(*d.group, piece.owner, piece.holder, rows, block, row_bytes, uncounted,
                      TrafficGroup::other);
    }
    std::byte* stored = block;
    if (d.transposed) {
        stored = transposed_.of(piece.count * row_bytes);
        transpose(block, stored, piece.count, d.cols, element);
    }
    writer_->write_piece(path, piece.shard, HostBlock{stored, access.dtype, local_shape(piece.shard)},
                         so_far);
}

void StateIo::read_piece(const std::string& path, const DistributedRows& d, const RowAccess& access,
                         const Piece& piece, Pieces& so_far) {
    const std::size_t element = size_of(access.dtype), row_bytes = element * static_cast<std::size_t>(d.cols);
    std::byte* const stored = transposed_.of(piece.count * row_bytes);
    reader_->read_piece(path, piece.shard, HostBlock{stored, access.dtype, local_shape(piece.shard)}, so_far);
    std::byte* block = stored;
    if (d.transposed) {
        block = block_.of(piece.count * row_bytes);
        transpose(stored, block, d.cols, piece.count, element);
    }
    std::byte* rows = block;
    if (d.group->size() > 1) {
        rows = rows_.of(piece.held.size() * row_bytes);
        Traffic uncounted;
        exchange_rows(*d.group, piece.holder, piece.owner, block, rows, row_bytes, uncounted,
                      TrafficGroup::other);
    }
    transfer_.set(access.to, piece.held, d.cols, access.dtype, rows);
}

void StateIo::integers(const std::string& path, std::vector<std::int64_t>& values, int world_rank) {
    const auto count = static_cast<std::int64_t>(values.size());
    const Shard shard{path, {count}, 0, 0, count, 1, world_rank};
    const HostBlock block{values.data(), DType::i64, {count}};
    if (counted_bytes_) {
        *counted_bytes_ += stored_bytes(shard.global, block.dtype);
        return;
    }
    writer_ ? writer_->write(path, shard, block) : reader_->read(path, shard, block);
}

void StateIo::attribute(const std::string& object, const std::string& key, std::int64_t& value) {
    if (writer_)
        writer_->attribute(object, key, value);
    else if (reader_)
        value = reader_->integer(object, key, std::numeric_limits<std::int64_t>::min(),
                                 std::numeric_limits<std::int64_t>::max());
}

void StateIo::note(const std::string& object, const std::string& key, const Attribute& value) {
    if (writer_) writer_->attribute(object, key, value);
}

}  // namespace switchyard
