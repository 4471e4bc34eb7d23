// StateIo: one walk over a run's state serves saving and loading. Whoever owns state lists it once, by path:
// the same calls in the same order on all ranks. Values are fetched, or taken, later and in any order: what a
// call is given must live until the writer commits or complete() returns.
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
    std::vector<std::int32_t> held;   // rows here, ascending; those from `rows` on are padding
    Shape global;                     // of the dataset as stored, without padding
    std::int64_t row0 = 0, col0 = 0;  // where the group's part lies, before transposition
    std::int64_t rows = 0, cols = 1;  // its valid extent
    bool transposed = false;          // the dataset holds the transpose
    int replica = 0;
    bool overlaps = false;  // loading: ranks of other groups want some of the same values
};

/// Where the `cols` values of a held row lie when they are saved, and where they go when they are loaded. The
/// dataset is of `dtype`; the tensors may be of others.
struct RowAccess {
    DType dtype = DType::f32;
    RowPlace from, to;
};

/// Rows that are formed when they are saved, and taken apart when they are loaded, some at a time.
struct FormedRows {
    std::function<Tensor(std::int64_t count)> room;              // (count, >= cols): until the next call
    std::function<void(std::int64_t first, Tensor rows)> form;   // rows first, first + 1, ... of the shard
    std::function<void(std::int64_t first, Tensor rows)> store;  // padding columns are zero
};

class StateIo {
  public:
    explicit StateIo(CheckpointWriter& writer);
    explicit StateIo(const CheckpointReader& reader);
    /// Neither saves nor loads: adds up the bytes of all datasets (of the whole file). Touches no values, so
    /// it works on a state over a measuring arena and without other ranks.
    explicit StateIo(std::uint64_t& dataset_bytes);
    ~StateIo();

    bool loading() const { return reader_ != nullptr; }
    bool saving() const { return writer_ != nullptr; }
    /// Loading: whether the file has this dataset.
    bool has(const std::string& path) const { return !reader_ || reader_->has(path); }

    /// A rectangle of the dataset, f32 or f64.
    void tensor(const std::string& path, const Shard&, Tensor);
    void formed(const std::string& path, const Shard&, DType, const FormedRows&);
    void rows(const std::string& path, const DistributedRows&, const RowAccess&);
    /// A small table known to all ranks: loaded at once.
    void integers(const std::string& path, std::vector<std::int64_t>&, int world_rank);
    void attribute(const std::string& object, const std::string& key, std::int64_t& value);
    /// Written for readers of the file; loading ignores it.
    void note(const std::string& object, const std::string& key, const Attribute& value);

    /// Loading: reads all that was listed; collective. The state is whole only then.
    void complete(const CheckpointReader::Progress& progress = {});

  private:
    CheckpointWriter* writer_ = nullptr;
    const CheckpointReader* reader_ = nullptr;
    std::uint64_t* counted_bytes_ = nullptr;
    struct Scratch;
    std::shared_ptr<Scratch> scratch_;  // of all sources and sinks: they are called one at a time
};

}  // namespace switchyard
