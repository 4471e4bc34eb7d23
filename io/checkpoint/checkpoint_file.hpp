// One HDF5 file per checkpoint: whole tensors under dotted names, written and read by all ranks as
// hyperslabs. A file never depends on (tp, dp), and a reader never sees a partial one (design section 6).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "comm/comm.hpp"
#include "core/shard.hpp"

namespace switchyard {

/// Values in host memory, row after row without gaps. A Tensor lies in back-end memory, always.
struct HostBlock {
    void* data = nullptr;
    DType dtype = DType::f32;
    Shape shape;
};

using Attribute = std::variant<std::int64_t, double, std::string>;
std::string text_of(const Attribute&);

class PartValues;  // stored_values.hpp

/// What was written or read so far of a dataset that comes in pieces.
struct Pieces {
    std::int64_t values = 0;     // of all ranks
    std::uint64_t checksum = 0;  // over this rank's
    std::int64_t inexact = 0;    // of this rank, read: changed by the type they were read as
    DType dtype = DType::f32;    // that type
};

/// Collective over `world`: all ranks make the same calls in the same order. An error on one rank (disk full,
/// ...) is agreed and thrown on all; an unfinished `path`.partial is then removed by the destructor, older
/// files are untouched.
class CheckpointWriter {
  public:
    /// Creates `path`.partial. Throws UserError when it cannot or when less than `expected_bytes` are free.
    CheckpointWriter(const Comm& world, std::string path, std::uint64_t expected_bytes);
    ~CheckpointWriter();
    CheckpointWriter(const CheckpointWriter&) = delete;
    CheckpointWriter& operator=(const CheckpointWriter&) = delete;

    /// `object`: "/" or a group or dataset path such as "/data"; groups are made as needed.
    void attribute(const std::string& object, const std::string& key, const Attribute& value);

    /// Writes this rank's part of dataset `path` ("/model/" + name, ...). `values` (>= shard.rows, >=
    /// shard.cols), padding skipped; bf16 goes to the file as f32. Ranks with nothing to write (replica != 0,
    /// empty shard) pass an empty shard or replica != 0 and still take part. shard.global and the dtype are
    /// the same on all ranks. Adds attribute `checksum`.
    void write(const std::string& path, const Shard& shard, Tensor values);
    void write(const std::string& path, const Shard& shard, const HostBlock& values);

    /// The same in any number of pieces, so that no rank needs room for its whole part: whole rows each, or
    /// one piece. finish() adds the checksum; until then the file does not verify.
    void write_piece(const std::string& path, const Shard& shard, const HostBlock& values, Pieces& so_far);
    void finish(const std::string& path, const Pieces& all);

    /// Syncs and closes on all ranks, renames to `path`, syncs the directory. Returns the file's bytes.
    std::uint64_t commit();

  private:
    void write_values(const std::string& path, const Shard& shard, PartValues& values, Pieces& so_far);
    struct State;
    std::unique_ptr<State> state_;
};

class CheckpointReader {
  public:
    /// Collective. Throws UserError when the file is missing or not one of ours.
    CheckpointReader(const Comm& world, const std::string& path);
    ~CheckpointReader();
    CheckpointReader(const CheckpointReader&) = delete;
    CheckpointReader& operator=(const CheckpointReader&) = delete;

    const std::string& path() const;
    bool has(const std::string& dataset) const;
    std::vector<std::string> datasets() const;
    Shape shape(const std::string& dataset) const;
    bool has_attribute(const std::string& object, const std::string& key) const;
    Attribute attribute(const std::string& object, const std::string& key) const;
    /// The same, as what it must be. Throws UserError naming file, object and key where it is missing, of
    /// another type or out of range.
    std::int64_t integer(const std::string& object, const std::string& key, std::int64_t least,
                         std::int64_t most) const;
    double real(const std::string& object, const std::string& key) const;
    std::string text(const std::string& object, const std::string& key) const;

    /// Reads this rank's part (replicas read too) into `values` (padding untouched); f32 in the file may go
    /// to bf16 or f64 and back if exact. Parts with replica == 0 must cover the dataset exactly once: their
    /// checksum is compared. Throws UserError naming dataset and file on a wrong shape or checksum.
    void read(const std::string& dataset, const Shard& shard, Tensor values) const;
    void read(const std::string& dataset, const Shard& shard, const HostBlock& values) const;

    /// The same in any number of pieces. What they read is to be trusted once finish() has compared the
    /// checksum.
    void read_piece(const std::string& dataset, const Shard& shard, const HostBlock& values,
                    Pieces& so_far) const;
    void finish(const std::string& dataset, const Pieces& all) const;

  private:
    void read_values(const std::string& dataset, const Shard& shard, PartValues& values,
                     Pieces& so_far) const;
    template <class T>
    T typed(const std::string& object, const std::string& key, const char* type) const;
    struct State;
    std::unique_ptr<State> state_;
};

/// sum over elements of mix64(i * 0x9E3779B97F4A7C15 + bits) modulo 2^64, i the flat global index, bits
/// zero-extended.
std::uint64_t checksum(const Shard& shard, Tensor values);
std::uint64_t checksum(const Shard& shard, const HostBlock& values);

/// For environment.json: the library, and how values get to the file.
std::string hdf5_version();
std::string mpi_io_component();

/// What a file holds, for inspect and diff (serial).
struct DatasetInfo {
    std::string path, dtype;
    std::vector<std::int64_t> shape;
    std::uint64_t bytes = 0;
};
struct FileContents {
    std::map<std::string, std::map<std::string, Attribute>> attributes;  // object -> key -> value
    std::vector<DatasetInfo> datasets;
    std::uint64_t file_bytes = 0;
};
FileContents file_contents(const std::string& path);

/// Problems found in the file: unreadable metadata, checksums that do not fit, missing parts. Empty: it
/// verifies. Throws UnreadableError (io/files) where the file may be whole, but cannot be read here.
std::vector<std::string> verify_file(const std::string& path);

/// Differences outside provenance, one line each with the largest absolute and relative difference of a
/// dataset. tolerance: relative to the dataset's largest absolute value; 0: bitwise.
struct Difference {
    std::string path, text;
};
std::vector<Difference> diff_files(const std::string& a, const std::string& b, double tolerance);

/// Checkpoints of a run directory.
std::string checkpoint_path(const std::string& directory, std::int64_t step);  // step_00012000.h5
/// Complete checkpoints, newest first (rank 0's view only; broadcast what you decide). None where there is no
/// such directory; throws UserError when it cannot be read.
std::vector<std::pair<std::int64_t, std::string>> list_checkpoints(const std::string& directory);

}  // namespace switchyard
