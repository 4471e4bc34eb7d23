// Writing. Rank 0 makes the structure in memory and tells where each dataset lies; all ranks write windows of
// values through their own descriptors; rank 0 adds the structure last. So no HDF5 call is collective or
// touches the file system, every failure is one rank's own result, and it is agreed on before anything goes
// on.
#include <fcntl.h>
#include <omp.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <map>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "core/units.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/stored_values.hpp"
#include "io/checkpoint/structure_file.hpp"
#include "io/checkpoint/windows.hpp"
#include "io/files/files.hpp"

namespace switchyard {
namespace {

void check_file_size_limit(const std::string& path, std::uint64_t bytes) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
    require(limit.rlim_cur >= bytes,
            "cannot write {} ({} needed, files are limited to {}); raise `ulimit -f`", path,
            bytes_text(bytes), bytes_text(limit.rlim_cur));
}

void check_free_space(const std::string& path, std::uint64_t bytes) {
    struct statvfs info {};
    require(::statvfs(directory_of(path).c_str(), &info) == 0, "cannot write {} ({}: {}); check run.dir",
            path, directory_of(path), system_reason);
    const std::uint64_t free = std::uint64_t{info.f_bavail} * info.f_frsize;
    require(free >= bytes,
            "cannot write {} (no space left: {} needed, {} free); remove files or lower run.keep_last", path,
            bytes_text(bytes), bytes_text(free));
}

struct Declared {
    std::string path;
    Shape shape;
    DType dtype = DType::f32;  // as stored

    std::uint64_t bytes() const { return static_cast<std::uint64_t>(shape.size()) * size_of(dtype); }
};

}  // namespace

struct CheckpointWriter::State {
    Comm world;
    std::string path, partial;
    std::uint64_t window_bytes = 0;

    std::vector<Declared> datasets;
    std::vector<HeldPart> parts;
    std::map<std::pair<std::string, std::string>, Attribute> attributes;
    std::string problem;  // with a declaration

    std::optional<StructureFile> structure;  // rank 0
    std::vector<Place> places;
    std::vector<std::size_t> by_offset;            // datasets with values
    std::vector<std::uint64_t> checksums, filled;  // of each dataset, this rank's part; filled: bytes
    FileDescriptor data;
    bool made_partial = false;
    FileIdentity made;

    std::vector<FileWindow> staged;
    std::uint64_t staged_bytes = 0;
    bool copied = false;
    std::string error;  // the first write that failed here
    std::atomic<std::uint64_t> writes{0}, bytes_written{0};

    bool root() const { return world.rank() == 0; }

    /// Rank 0 does `work`; its error is thrown on all ranks.
    template <class Work>
    void on_root(Work work) {
        agree_on(world, [&] {
            if (root()) try {
                    work();
                } catch (const UserError& error) {
                    fail("cannot write {} ({}); {}", path, error.what(), writing_advice);
                }
        });
    }

    std::uint64_t dataset_bytes() const {
        std::uint64_t bytes = 0;
        for (const Declared& dataset : datasets) bytes += dataset.bytes();
        return bytes;
    }

    /// Digest of what all ranks must declare alike.
    std::uint64_t digest() const {
        std::uint64_t sum = datasets.size();
        const auto add = [&](std::uint64_t word) { sum = mix64(sum * 3 + word); };
        for (const Declared& dataset : datasets) {
            for (const char letter : dataset.path) add(static_cast<unsigned char>(letter));
            for (int i = 0; i < dataset.shape.rank(); ++i) add(static_cast<std::uint64_t>(dataset.shape[i]));
            add(static_cast<std::uint64_t>(dataset.dtype));
        }
        return sum;
    }

    void place() {
        agree_on(world, [&] {
            internal_check(problem.empty(), "{}", problem);
            check_file_size_limit(path, dataset_bytes());
            if (!root()) return;
            check_free_space(path, dataset_bytes());
            made_partial = true;
            data = create_anew(partial);
            made = identity_of(data);
        });
        const std::vector<std::uint64_t> digests = gather_values(world, digest());
        for (int rank = 0; rank < world.size(); ++rank)
            internal_check(digests[rank] == digests[0], "ranks 0 and {} declare different datasets for {}",
                           rank, path);
        std::string offsets(datasets.size() * sizeof(std::uint64_t), '\0');
        agree_on(world, [&] {
            if (root()) return make_structure(offsets);
            data = FileDescriptor(::open(partial.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
            require(data >= 0, "cannot open {} ({}); all ranks must see run.dir", partial, system_reason);
        });
        offsets = broadcast(world, offsets);
        for (std::size_t i = 0; i < datasets.size(); ++i) {
            std::uint64_t offset = 0;
            std::memcpy(&offset, offsets.data() + i * sizeof offset, sizeof offset);
            places.push_back(place_of(offset, datasets[i].shape, datasets[i].dtype));
            if (places[i].bytes().size() > 0) by_offset.push_back(i);
        }
        std::sort(by_offset.begin(), by_offset.end(),
                  [&](std::size_t a, std::size_t b) { return places[a].offset < places[b].offset; });
        checksums.resize(datasets.size());
        filled.resize(datasets.size());
    }

    void make_structure(std::string& offsets) {
        constexpr std::uint64_t dataset_bytes = 330, attribute_bytes = 100;  // as HDF5 1.10 needs
        std::uint64_t expected = datasets.size() * dataset_bytes;
        for (const auto& [key, value] : attributes) expected += attribute_bytes + text_of(value).size();
        structure.emplace(expected);
        for (std::size_t i = 0; i < datasets.size(); ++i) {
            const std::uint64_t offset =
                structure->add_dataset(datasets[i].path, datasets[i].shape, datasets[i].dtype);
            internal_check(offset % size_of(datasets[i].dtype) == 0, "{} lies at byte {}", datasets[i].path,
                           offset);
            std::memcpy(offsets.data() + i * sizeof offset, &offset, sizeof offset);
        }
        for (const auto& [key, value] : attributes) structure->attribute(key.first, key.second, value);
    }

    void collect(const std::function<void(FileWindow&)>& take) {
        sort_by_place(parts, places);
        agree_on(world, [&] {
            collect_windows(world, places, parts, WindowPlan::for_saving(world.size(), window_bytes), take,
                            filled);
        });
        parts.clear();
    }

    /// Checksums of the datasets in a window, while it is in cache, and the write.
    void write(const FileWindow& window) {
        auto next = std::partition_point(by_offset.begin(), by_offset.end(), [&](std::size_t i) {
            return places[i].bytes().end <= window.filled.begin;
        });
        for (; next != by_offset.end() && places[*next].offset < window.filled.end; ++next) {
            const Place& place = places[*next];
            const ByteRange bytes = common(place.bytes(), window.filled);
            const auto count = static_cast<std::int64_t>(bytes.size() / place.element_bytes);
            const auto first = static_cast<std::int64_t>((bytes.begin - place.offset) / place.element_bytes);
            checksums[*next] +=
                checksum_rows(window.at(bytes.begin), datasets[*next].dtype, 1, count, first, count);
        }
        if (!error.empty()) return;
        error = write_fully(data, window.at(window.filled.begin), window.filled.size(), window.filled.begin);
        ++writes;
        bytes_written += window.filled.size();
    }

    void sync() {
        if (error.empty() && ::fsync(data) != 0) error = fmt::format("fsync: {}", system_reason);
    }

    void add_checksums() {
        std::vector<std::uint64_t> words = checksums;
        words.insert(words.end(), filled.begin(), filled.end());
        words = all_reduce_sum_u64(world, words);
        for (std::size_t i = 0; i < datasets.size(); ++i) {
            const std::uint64_t held = words[datasets.size() + i];
            internal_check(held == datasets[i].bytes(), "dataset {}: parts hold {} of {} values",
                           datasets[i].path, held / size_of(datasets[i].dtype), datasets[i].shape.size());
            if (root()) structure->set_checksum(datasets[i].path, words[i]);
        }
    }
};

std::uint64_t staged_bytes(std::uint64_t file_bytes, int ranks, std::uint64_t window_bytes) {
    const std::uint64_t windows = file_bytes / window_bytes + 2;
    const std::uint64_t share = (windows + ranks - 1) / ranks * window_bytes;
    const std::uint64_t round = WindowPlan::for_saving(ranks, window_bytes).round_bytes / ranks;
    const std::uint64_t uneven =
        ranks > 1 ? share / 16 + window_bytes : 0;  // measured: 3 % with many windows
    return share + uneven + (ranks > 1 ? 2 * std::min(round, file_bytes) : 0);
}

CheckpointWriter::CheckpointWriter(const Comm& world, std::string path, std::uint64_t window_bytes)
    : state_(std::make_unique<State>()) {
    State& s = *state_;
    s.world = world;
    s.partial = path + ".partial";
    s.path = std::move(path);
    s.window_bytes = window_bytes;
    ignore_file_size_signal();
}

CheckpointWriter::~CheckpointWriter() {
    if (state_->made_partial && is_still_at(state_->partial, state_->made)) ::unlink(state_->partial.c_str());
}

void CheckpointWriter::attribute(const std::string& object, const std::string& key, const Attribute& value) {
    state_->attributes[{object, key}] = value;
}

void CheckpointWriter::write(const std::string& path, const Shard& shard, Tensor values) {
    write_values(path, shard, PartValues(shard, values));
}

void CheckpointWriter::write(const std::string& path, const Shard& shard, const HostBlock& values) {
    write_values(path, shard, PartValues(shard, values));
}

void CheckpointWriter::write_values(const std::string& path, const Shard& shard, PartValues values) {
    if (const std::string problem = values.problem(); !problem.empty() && state_->problem.empty())
        state_->problem = fmt::format("dataset {}: {}", path, problem);
    const DType stored = stored_dtype(values.dtype());
    write(path, shard, stored,
          [values = std::make_shared<PartValues>(std::move(values))](
              auto first, auto count, std::byte* packed) { values->pack(first, count, packed); });
}

void CheckpointWriter::write(const std::string& path, const Shard& shard, DType stored, RowSource source) {
    declare(path, shard.global, stored,
            {.part = part_of(shard),
             .replica = shard.replica,
             .replicas = std::max(1, shard.replicas),
             .source = std::move(source)});
}

void CheckpointWriter::declare(const std::string& path, const Shape& global, DType stored, HeldPart held) {
    State& s = *state_;
    held.dataset = s.datasets.size();
    s.datasets.push_back({path, global, stored});
    if (!held.part.empty() && held.replica < held.replicas) s.parts.push_back(std::move(held));
}

std::uint64_t CheckpointWriter::dataset_bytes() const {
    return state_->dataset_bytes();
}

void CheckpointWriter::stage() {
    State& s = *state_;
    s.place();
    s.copied = true;
    s.collect([&](FileWindow& window) {
        s.staged_bytes += s.window_bytes;
        s.staged.push_back(std::move(window));
    });
}

void CheckpointWriter::write_staged(Threads threads) {
    State& s = *state_;
    if (threads == Threads::one) ::omp_set_num_threads(1);  // for parallel regions of this thread
    for (FileWindow& window : s.staged) {
        s.write(window);
        window.data.reset();
    }
    s.staged.clear();
    s.sync();
}

std::uint64_t CheckpointWriter::staged_bytes() const {
    return state_->staged_bytes;
}

std::uint64_t CheckpointWriter::rounds() const {
    const State& s = *state_;
    return WindowPlan::for_saving(s.world.size(), s.window_bytes).rounds(end_of(s.places));
}

CheckpointWriter::Written CheckpointWriter::written() const {
    return {state_->writes, state_->bytes_written};
}

std::uint64_t CheckpointWriter::commit() {
    State& s = *state_;
    if (!s.copied) {
        s.place();
        s.collect([&](FileWindow& window) { s.write(window); });
        s.sync();
    }
    agree(s.world, s.error.empty(), fmt::format("cannot write {} ({}); {}", s.path, s.error, writing_advice));
    s.add_checksums();
    std::int64_t bytes = 0;
    s.on_root([&] {
        bytes = static_cast<std::int64_t>(s.structure->finish());
        s.structure->write_to(s.data);
        require(::fsync(s.data) == 0, "fsync: {}", system_reason);
    });
    agree_on(s.world, [&] {
        require(s.data.close() == 0, "cannot write {} (close: {}); {}", s.path, system_reason,
                writing_advice);
    });
    s.on_root([&] {
        require(is_still_at(s.partial, s.made), "another process replaced or removed {}", s.partial);
        require(::rename(s.partial.c_str(), s.path.c_str()) == 0, "rename: {}", system_reason);
        s.made_partial = false;
        const FileDescriptor folder(::open(directory_of(s.path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        require(folder >= 0 && ::fsync(folder) == 0, "sync of {}: {}", directory_of(s.path), system_reason);
    });
    return static_cast<std::uint64_t>(broadcast(s.world, bytes));
}

std::string hdf5_version() {
    unsigned major = 0, minor = 0, release = 0;
    SWITCHYARD_HDF5(H5get_libversion(&major, &minor, &release));
    return fmt::format("{}.{}.{}", major, minor, release);
}

std::string mpi_io_component() {
    return "none (ranks exchange parts over MPI and write with POSIX calls)";
}

}  // namespace switchyard
