// StateIo: one walk over a run's state serves saving and loading. Whoever owns state lists it once, by path;
// the walk is collective over the world, the same calls in the same order on all ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/comm.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/row_transfer.hpp"

namespace switchyard {

/// Rows of a (rows, cols) part of a dataset, spread over the ranks of `group` in any order.
struct DistributedRows {
    const Comm* group = nullptr;
    const std::vector<int>* owner =
        nullptr;                      // rank in `group` of each row; entries from `rows` on are padding
    std::vector<std::int32_t> held;   // rows here, ascending
    Shape global;                     // of the dataset as stored, without padding
    std::int64_t row0 = 0, col0 = 0;  // where the group's part lies, before transposition
    std::int64_t rows = 0, cols = 1;  // its valid extent
    std::int64_t width = 1;           // columns with padding, as on all ranks
    bool transposed = false;          // the dataset holds the transpose
    int replica = 0;
};

/// Where the `cols` values of a held row lie when they are saved, and where they go when they are loaded. The
/// dataset is of `dtype`; the tensors may be of others.
struct RowAccess {
    DType dtype = DType::f32;
    RowPlace from, to;
};

/// Grows when needed; keeps its pages from one dataset to the next. Contents are lost when it grows.
class ScratchMemory {
  public:
    std::byte* of(std::size_t bytes) {
        if (bytes > capacity_) bytes_ = std::make_unique_for_overwrite<std::byte[]>(capacity_ = bytes);
        return bytes_.get();
    }

  private:
    std::unique_ptr<std::byte[]> bytes_;
    std::size_t capacity_ = 0;
};

class StateIo {
  public:
    explicit StateIo(CheckpointWriter& writer) : writer_(&writer) {}
    explicit StateIo(const CheckpointReader& reader) : reader_(&reader) {}
    /// Neither saves nor loads: adds up the bytes of all datasets (of the whole file). Touches no values, so
    /// it works on a state over a measuring arena and without other ranks.
    explicit StateIo(std::uint64_t& dataset_bytes) : counted_bytes_(&dataset_bytes) {}

    bool loading() const { return reader_ != nullptr; }
    bool saving() const { return writer_ != nullptr; }
    /// Loading: whether the file has this dataset.
    bool has(const std::string& path) const { return !reader_ || reader_->has(path); }

    /// A rectangle of the dataset, f32 or f64.
    void tensor(const std::string& path, const Shard&, Tensor);
    void rows(const std::string& path, const DistributedRows&, const RowAccess&);
    /// A small table known to all ranks.
    void integers(const std::string& path, std::vector<std::int64_t>&, int world_rank);
    void attribute(const std::string& object, const std::string& key, std::int64_t& value);
    /// Written for readers of the file; loading ignores it.
    void note(const std::string& object, const std::string& key, const Attribute& value);

    struct Piece;

  private:
    void write_piece(const std::string& path, const DistributedRows&, const RowAccess&, const Piece&,
                     Pieces& so_far);
    void read_piece(const std::string& path, const DistributedRows&, const RowAccess&, const Piece&,
                    Pieces& so_far);

    CheckpointWriter* writer_ = nullptr;
    const CheckpointReader* reader_ = nullptr;
    std::uint64_t* counted_bytes_ = nullptr;
    RowTransfer transfer_;
    ScratchMemory rows_, block_, transposed_;  // as held here, as in the file, transposed for it
};

}  // namespace switchyard
