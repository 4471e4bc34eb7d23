// Writing: rank 0 alone holds the HDF5 file (structure, attributes) and tells where each dataset lies; all
// ranks write values there through their own descriptors. So no HDF5 call is collective, every failure is one
// rank's own result, and it is agreed on before anything goes on. HDF5's metadata reach the disk in commit()
// at the latest.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/error.hpp"
#include "core/units.hpp"
#include "io/checkpoint/catalog.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/file_parts.hpp"
#include "io/checkpoint/stored_values.hpp"
#include "io/files/files.hpp"

namespace switchyard {
namespace {

using hdf5::Handle;

constexpr hsize_t alignment_bytes = 1 << 20;  // a Lustre stripe is a multiple of it
constexpr hsize_t aligned_from_bytes = 4 << 20;

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

Handle create_file(const std::string& path) {
    const Handle access = hdf5::file_access();
    SWITCHYARD_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST));
    SWITCHYARD_HDF5(H5Pset_alignment(access, aligned_from_bytes, alignment_bytes));
    const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "H5Pcreate");
    SWITCHYARD_HDF5(H5Pset_obj_track_times(creation, false));
    return hdf5::create_file(path, creation, access);
}

/// What the ranks must know of each other, and agree on, before a dataset is written.
struct Announcement {
    Part part;
    std::int64_t rows = 0, cols = 0;
    int dtype = 0, holds_values = 0;
};

}  // namespace

struct CheckpointWriter::State {
    Comm world;
    std::string path, partial;
    FileDescriptor data;
    Handle file;      // rank 0
    Catalog catalog;  // rank 0: what was asked for, to which the digest belongs
    bool made_partial = false;

    bool root() const { return world.rank() == 0; }

    /// Rank 0 does `work`; an error of it is every rank's.
    template <class Work>
    void on_root(Work work) {
        agree_on(world, [&] {
            if (root()) try {
                    work();
                } catch (const UserError& error) {
                    fail("cannot write {} ({})", path, error.what());
                }
        });
    }

    /// Closes an unfinished file away from its disk, which may be full: HDF5 writes what it still has to
    /// memory. After a close that failed it would crash in MPI_Finalize.
    void abandon() {
        void* descriptor = nullptr;
        if (file >= 0 && H5Fget_vfd_handle(file, H5P_DEFAULT, &descriptor) >= 0) {
            const FileDescriptor memory(::memfd_create("abandoned checkpoint", MFD_CLOEXEC));
            if (memory >= 0) ::dup3(memory, *static_cast<int*>(descriptor), O_CLOEXEC);
        }
        file.reset();
    }

    void make_group(const std::string& group) {
        if (catalog.attributes.contains(group)) return;
        const std::size_t slash = group.rfind('/');
        internal_check(slash != std::string::npos, "object {} does not start with /", group);
        make_group(slash == 0 ? "/" : group.substr(0, slash));
        const Handle creation(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "H5Pcreate");
        SWITCHYARD_HDF5(H5Pset_obj_track_times(creation, false));
        const Handle made(H5Gcreate2(file, group.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT), H5Gclose,
                          "H5Gcreate2");
        catalog.attributes[group];
    }

    void make_dataset(const std::string& dataset, const Shape& shape, DType dtype) {
        require(!catalog.attributes.contains(dataset), "{} exists already", dataset);
        make_group(dataset.rfind('/') == 0 ? "/" : dataset.substr(0, dataset.rfind('/')));
        StoredDataset& stored = catalog.datasets[dataset];
        stored.dtype = dtype;
        hsize_t extents[2] = {};
        for (int i = 0; i < shape.rank(); ++i) {
            extents[i] = static_cast<hsize_t>(shape[i]);
            stored.shape.push_back(shape[i]);
        }
        const Handle space(H5Screate_simple(shape.rank(), extents, nullptr), H5Sclose, "H5Screate_simple");
        const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate");
        SWITCHYARD_HDF5(H5Pset_layout(creation, H5D_CONTIGUOUS));
        SWITCHYARD_HDF5(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY));
        SWITCHYARD_HDF5(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER));
        SWITCHYARD_HDF5(H5Pset_obj_track_times(creation, false));
        const Handle made(
            H5Dcreate2(file, dataset.c_str(), file_type(dtype), space, H5P_DEFAULT, creation, H5P_DEFAULT),
            H5Dclose, "H5Dcreate2");
        catalog.attributes[dataset];
        if (shape.size() == 0) return;
        const haddr_t offset = H5Dget_offset(made);
        require(offset != HADDR_UNDEF, "dataset {} got no place in the file", dataset);
        stored.offset = offset;
    }

    void write_checksums() {
        for (const auto& [name, dataset] : catalog.datasets) {
            const Handle object(H5Oopen(file, name.c_str(), H5P_DEFAULT), H5Oclose, "H5Oopen");
            write_checksum(object, checksum_key, dataset.checksum.value());
        }
        const Handle root_group(H5Oopen(file, "/", H5P_DEFAULT), H5Oclose, "H5Oopen");
        write_checksum(root_group, digest_key, digest_of(catalog));
    }
};

CheckpointWriter::CheckpointWriter(const Comm& world, std::string path, std::uint64_t expected_bytes)
    : state_(std::make_unique<State>()) {
    State& s = *state_;
    s.world = world;
    s.partial = path + ".partial";
    s.path = std::move(path);
    ignore_file_size_signal();
    try {
        agree_on(world, [&] {
            check_file_size_limit(s.path, expected_bytes);
            if (!s.root()) return;
            check_free_space(s.path, expected_bytes);
            s.made_partial = true;
            s.file = create_file(s.partial);
            s.data = FileDescriptor(::open(s.partial.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
            require(s.data >= 0, "cannot open {} ({}); check run.dir", s.partial, system_reason);
            s.catalog.attributes["/"];
        });
        agree_on(world, [&] {
            if (s.root()) return;
            s.data = FileDescriptor(::open(s.partial.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
            require(s.data >= 0, "cannot open {} ({}); all ranks must see run.dir", s.partial, system_reason);
        });
    } catch (...) {
        if (s.made_partial) ::unlink(s.partial.c_str());
        throw;
    }
}

CheckpointWriter::~CheckpointWriter() {
    State& s = *state_;
    s.abandon();
    if (s.made_partial) ::unlink(s.partial.c_str());
}

void CheckpointWriter::attribute(const std::string& object, const std::string& key, const Attribute& value) {
    State& s = *state_;
    s.on_root([&] {
        if (!s.catalog.datasets.contains(object)) s.make_group(object);
        const Handle target(H5Oopen(s.file, object.c_str(), H5P_DEFAULT), H5Oclose, "H5Oopen");
        write_attribute(target, key, value);
        s.catalog.attributes[object][key] = value;
    });
}

void CheckpointWriter::write(const std::string& path, const Shard& shard, Tensor values) {
    PartValues part(shard, values);
    Pieces all;
    write_values(path, shard, part, all);
    finish(path, all);
}

void CheckpointWriter::write(const std::string& path, const Shard& shard, const HostBlock& values) {
    Pieces all;
    write_piece(path, shard, values, all);
    finish(path, all);
}

void CheckpointWriter::write_piece(const std::string& path, const Shard& shard, const HostBlock& values,
                                   Pieces& so_far) {
    PartValues part(shard, values);
    write_values(path, shard, part, so_far);
}

void CheckpointWriter::write_values(const std::string& path, const Shard& shard, PartValues& values,
                                    Pieces& so_far) {
    State& s = *state_;
    const bool writes = shard.replica == 0 && !shard.empty();
    Announcement mine;
    if (writes) mine.part = {shard.row0, shard.rows, shard.col0, shard.cols};
    mine.rows = shard.global.rank() >= 1 ? shard.global[0] : 0;
    mine.cols = shard.global_cols();
    mine.dtype = static_cast<int>(stored_dtype(values.dtype()));
    mine.holds_values = writes;
    const std::vector<Announcement> all = gather_values(s.world, mine);

    std::vector<Part> parts;
    const bool first = so_far.values == 0;
    const Announcement* typical = &all[0];  // says the type: the first that holds values
    for (const Announcement& one : all) {
        parts.push_back(one.part);
        so_far.values += one.part.area();
        if (one.holds_values && !typical->holds_values) typical = &one;
    }
    const DType dtype = static_cast<DType>(typical->dtype);
    agree_on(s.world, [&] {
        const std::string problem = writes ? values.problem() : "";
        internal_check(problem.empty(), "dataset {}: {}", path, problem);
        internal_check(mine.rows == typical->rows && mine.cols == typical->cols && shard.global.rank() >= 1 &&
                           (!writes || mine.dtype == typical->dtype),
                       "dataset {}: ranks differ in shape ({}) or type ({})", path, shard.global.text(),
                       name_of(values.dtype()));
    });
    std::int64_t offset = 0;
    s.on_root([&] {
        if (first) s.make_dataset(path, shard.global, dtype);
        offset = static_cast<std::int64_t>(s.catalog.datasets.at(path).offset);
    });
    offset = broadcast(s.world, offset);

    const FileArray array{s.data, static_cast<std::uint64_t>(offset), mine.rows, mine.cols, size_of(dtype)};
    const std::string error = write_parts(s.world, parts, array, [&](auto begin, auto count, std::byte* to) {
        values.pack(begin, count, to);
        so_far.checksum += checksum_rows(to, dtype, count, shard.cols,
                                         (shard.row0 + begin) * mine.cols + shard.col0, mine.cols);
    });
    agree(s.world, error.empty(), fmt::format("cannot write {} (dataset {}: {})", s.path, path, error));
}

void CheckpointWriter::finish(const std::string& path, const Pieces& all) {
    State& s = *state_;
    const std::uint64_t sum = all_reduce_sum_u64(s.world, all.checksum);
    agree_on(s.world, [&] {
        if (!s.root()) return;
        StoredDataset& dataset = s.catalog.datasets.at(path);
        std::int64_t size = 1;
        for (std::int64_t extent : dataset.shape) size *= extent;
        internal_check(all.values == size, "dataset {}: parts hold {} of {} values", path, all.values, size);
        dataset.checksum = sum;
    });
}

std::uint64_t CheckpointWriter::commit() {
    State& s = *state_;
    s.on_root([&] {
        s.write_checksums();
        SWITCHYARD_HDF5(H5Fflush(s.file, H5F_SCOPE_GLOBAL));
        SWITCHYARD_HDF5(H5Fclose(s.file.release()));
    });
    agree_on(s.world, [&] {
        require(::fsync(s.data) == 0, "cannot write {} (fsync: {})", s.path, system_reason);
        require(s.data.close() == 0, "cannot write {} (close: {})", s.path, system_reason);
    });
    std::int64_t bytes = 0;
    s.on_root([&] {
        require(::rename(s.partial.c_str(), s.path.c_str()) == 0, "rename: {}", system_reason);
        s.made_partial = false;
        const FileDescriptor folder(::open(directory_of(s.path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        require(folder >= 0 && ::fsync(folder) == 0, "sync of {}: {}", directory_of(s.path), system_reason);
        bytes = static_cast<std::int64_t>(std::filesystem::file_size(s.path));
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
