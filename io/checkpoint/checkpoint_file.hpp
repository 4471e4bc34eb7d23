// One HDF5 file per checkpoint: whole tensors under dotted names, written and read by all ranks as
// hyperslabs. A file never depends on (tp, dp), and a reader never sees a partial one (design section 6).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "comm/comm.hpp"
#include "core/error.hpp"
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

/// Packs rows [first, first + count) of a shard as the file stores them, without padding. What it refers to
/// must live until the writer commits.
using RowSource = std::function<void(std::int64_t first, std::int64_t count, std::byte* packed)>;

/// Length of a write: what lies between two multiples of it in the file is written at once.
inline constexpr std::uint64_t default_window_bytes = 4 << 20;
inline constexpr std::uint64_t least_window_bytes = 4 << 10;

class PartValues;  // stored_values.hpp
struct HeldPart;   // part.hpp

/// Memory that a rank needs to save a file in the background: its share of the windows, and room to exchange
/// some of them.
std::uint64_t staged_bytes(std::uint64_t file_bytes, int ranks, std::uint64_t window_bytes);

/// Declare, place, fill. Datasets and attributes are declared by all ranks alike, each with the part that
/// this rank holds; then everything is written at once. Collective over `world` are start(), commit() and the
/// destructor of what was started. An error on one rank (disk full, ...) is agreed and thrown on all; an
/// unfinished `path`.partial is then removed by the destructor, older files are untouched.
class CheckpointWriter {
  public:
    CheckpointWriter(const Comm& world, std::string path, std::uint64_t window_bytes = default_window_bytes);
    ~CheckpointWriter();
    CheckpointWriter(const CheckpointWriter&) = delete;
    CheckpointWriter& operator=(const CheckpointWriter&) = delete;

    /// `object`: "/" or a group or dataset path such as "/data"; groups are made as needed. If a key is given
    /// twice, the last value counts; rank 0's is the one that is stored.
    void attribute(const std::string& object, const std::string& key, const Attribute& value);

    /// This rank's part of dataset `path` ("/model/" + name, ...). `values` (>= shard.rows, >= shard.cols),
    /// padding skipped, stay where they are until commit(); bf16 goes to the file as f32. Of shard.replicas
    /// ranks that hold the same each writes its share. shard.global and the dtype are the same on all ranks.
    void write(const std::string& path, const Shard& shard, Tensor values);
    void write(const std::string& path, const Shard& shard, const HostBlock& values);
    /// The same from a function. `stored`: not bf16.
    void write(const std::string& path, const Shard& shard, DType stored, RowSource source);
    /// The same for parts of any shape; held.dataset is set here.
    void declare(const std::string& path, const Shape& global, DType stored, HeldPart held);

    /// Bytes of all datasets declared so far.
    std::uint64_t dataset_bytes() const;

    /// Begins a save in the background: gives every dataset its place, copies the values and brings them to
    /// the ranks that write them. Afterwards the state may change.
    void stage();
    /// After stage(), on any thread: this rank's checksums, writes and sync, without MPI or HDF5. An error is
    /// kept for commit().
    enum class Threads { one, all };  // that compute checksums
    void write_staged(Threads);
    /// Memory of this rank that stage() left filled. write_staged() gives it back as it writes.
    std::uint64_t staged_bytes() const;

    /// Writes what is not written yet, syncs and closes on all ranks, renames to `path`, syncs the directory.
    /// Returns the file's bytes.
    std::uint64_t commit();

    /// Writes and bytes written by this rank so far, without the structure. From any thread.
    struct Written {
        std::uint64_t writes = 0, bytes = 0;
    };
    /// Rounds of the exchange, in all: one collective each.
    std::uint64_t rounds() const;
    Written written() const;

  private:
    void write_values(const std::string& path, const Shard& shard, PartValues values);
    struct State;
    std::unique_ptr<State> state_;
};

/// The file was changed or cut since it was written: its bytes are not those that its checksums describe, or
/// the disk cannot return them. Found by all ranks together.
class DamageError : public AgreedError {
  public:
    using AgreedError::AgreedError;
};

struct WantedPart;  // part.hpp

/// Constructor and fetch() are collective over `world`.
class CheckpointReader {
  public:
    /// Throws DamageError when the file is not whole, UserError when it is missing or not one of ours.
    CheckpointReader(const Comm& world, const std::string& path,
                     std::uint64_t window_bytes = default_window_bytes);
    ~CheckpointReader();
    CheckpointReader(const CheckpointReader&) = delete;
    CheckpointReader& operator=(const CheckpointReader&) = delete;

    const std::string& path() const;
    bool has(const std::string& dataset) const;
    std::vector<std::string> datasets() const;
    Shape shape(const std::string& dataset) const;
    bool has_attribute(const std::string& object, const std::string& key) const;
    Attribute attribute(const std::string& object, const std::string& key) const;
    /// An attribute as the type that it must have. Throws UserError naming file, object and key where it is
    /// missing, of another type or out of range.
    std::int64_t integer(const std::string& object, const std::string& key, std::int64_t least,
                         std::int64_t most) const;
    double real(const std::string& object, const std::string& key) const;
    std::string text(const std::string& object, const std::string& key) const;

    /// Reads this rank's part (replicas read too) into `values` (padding untouched); f32 in the file may go
    /// to bf16 or f64 and back if exact. The parts of all ranks cover the dataset. Throws UserError naming
    /// dataset and file on a wrong shape or type, DamageError on a wrong checksum. Collective.
    void read(const std::string& dataset, const Shard& shard, Tensor values) const;
    void read(const std::string& dataset, const Shard& shard, const HostBlock& values) const;

    /// Declares what this rank wants of a dataset. `as`: the type that the values are for. wanted.sink takes
    /// rows as the file stores them (stored_type()) in fetch(); wanted.dataset is set here.
    void want(const std::string& dataset, const Shape& global, DType as, WantedPart wanted) const;
    void want(const std::string& dataset, const Shard& shard, Tensor values) const;
    DType stored_type(const std::string& dataset) const;
    /// Reads everything that was wanted since the last fetch: each byte once, sent once to each rank that
    /// wants it. `progress` is called with bytes done and bytes in all, now and then. It compares checksums
    /// at its end, so what sinks took may be used only after it has returned.
    using Progress = std::function<void(std::uint64_t done, std::uint64_t all)>;
    void fetch(const Progress& progress = {}) const;

    /// A table of `size` whole numbers, at most 16 MiB; the constructor has read it with the structure.
    std::vector<std::int64_t> table(const std::string& dataset, std::size_t size) const;
    /// Number of ranks of the world.
    int ranks() const;

    /// The most bytes that fetch() has held at a time on this rank.
    std::uint64_t peak_bytes() const;

  private:
    void want_values(const std::string& dataset, const Shard& shard, PartValues values) const;
    template <class T>
    T typed(const std::string& object, const std::string& key, const char* type) const;
    struct State;
    std::unique_ptr<State> state_;
};

/// sum over elements of mix64(i * 0x9E3779B97F4A7C15 + bits) modulo 2^64, i the flat global index, bits
/// zero-extended.
std::uint64_t checksum(const Shard& shard, Tensor values);
std::uint64_t checksum(const Shard& shard, const HostBlock& values);

/// Texts for environment.json: the library, and how values get to the file.
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
