// The file in memory is sparse: values take no room in it.
#include "io/checkpoint/structure_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "core/error.hpp"
#include "io/checkpoint/part.hpp"

namespace switchyard {
namespace {

using hdf5::Handle;

constexpr hsize_t alignment_bytes = 8;  // no value is cut by the end of a window
constexpr hsize_t least_block_bytes = 2048, most_block_bytes = 4 << 20;

/// Where `range` of a sparse file holds something: page by page.
std::vector<ByteRange> stored_ranges(int fd, ByteRange range) {
    std::vector<ByteRange> stored;
    for (auto at = static_cast<off_t>(range.begin); at < static_cast<off_t>(range.end);) {
        const off_t begin = ::lseek(fd, at, SEEK_DATA);
        if (begin < 0 || begin >= static_cast<off_t>(range.end)) break;
        at = ::lseek(fd, begin, SEEK_HOLE);
        require(at > begin, "cannot look at the structure in memory: {}", system_reason);
        stored.push_back(common({static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(at)}, range));
    }
    return stored;
}

}  // namespace

StructureFile::StructureFile(const std::string& name, std::uint64_t expected_bytes)
    : memory_(::memfd_create("checkpoint structure", MFD_CLOEXEC)) {
    require(memory_ >= 0, "cannot make a file in memory: {}", system_reason);
    const Handle access = hdf5::file_access();
    SWITCHYARD_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST));
    SWITCHYARD_HDF5(H5Pset_alignment(access, 1, alignment_bytes));
    SWITCHYARD_HDF5(H5Pset_meta_block_size(
        access, std::clamp<hsize_t>(expected_bytes, least_block_bytes, most_block_bytes)));
    const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "H5Pcreate");
    SWITCHYARD_HDF5(H5Pset_obj_track_times(creation, false));
    file_ = Handle(H5Fcreate(name.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose, "H5Fcreate");
    // HDF5 opens by name, and memory has none: its descriptor is turned.
    void* descriptor = nullptr;
    SWITCHYARD_HDF5(H5Fget_vfd_handle(file_, H5P_DEFAULT, &descriptor));
    const int fd = *static_cast<int*>(descriptor);
    std::vector<std::byte> written(size_of_file(fd, name));
    std::string error = read_fully(fd, written.data(), written.size(), 0);
    if (error.empty()) error = write_fully(memory_, written.data(), written.size(), 0);
    require(error.empty() && ::dup3(memory_, fd, O_CLOEXEC) == fd, "cannot turn to memory: {}{}", error,
            system_reason);
    catalog_.attributes["/"];
}

void StructureFile::attribute(const std::string& object, const std::string& key, const Attribute& value) {
    if (!catalog_.datasets.contains(object)) make_group(object);
    const Handle target(H5Oopen(file_, object.c_str(), H5P_DEFAULT), H5Oclose, "H5Oopen");
    write_attribute(target, key, value);
    catalog_.attributes[object][key] = value;
}

void StructureFile::make_group(const std::string& group) {
    if (catalog_.attributes.contains(group)) return;
    const std::size_t slash = group.rfind('/');
    internal_check(slash != std::string::npos, "object {} does not start with /", group);
    make_group(slash == 0 ? "/" : group.substr(0, slash));
    const Handle creation(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "H5Pcreate");
    SWITCHYARD_HDF5(H5Pset_obj_track_times(creation, false));
    const Handle made(H5Gcreate2(file_, group.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT), H5Gclose,
                      "H5Gcreate2");
    catalog_.attributes[group];
}

std::uint64_t StructureFile::add_dataset(const std::string& path, const Shape& shape, DType dtype) {
    require(!catalog_.attributes.contains(path), "{} exists already", path);
    make_group(path.rfind('/') == 0 ? "/" : path.substr(0, path.rfind('/')));
    StoredDataset& stored = catalog_.datasets[path];
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
        H5Dcreate2(file_, path.c_str(), file_type(dtype), space, H5P_DEFAULT, creation, H5P_DEFAULT),
        H5Dclose, "H5Dcreate2");
    catalog_.attributes[path];
    if (shape.size() == 0) return 0;
    const haddr_t offset = H5Dget_offset(made);
    require(offset != HADDR_UNDEF, "dataset {} got no place in the file", path);
    return stored.offset = offset;
}

void StructureFile::set_checksum(const std::string& path, std::uint64_t checksum) {
    catalog_.datasets.at(path).checksum = checksum;
}

std::uint64_t StructureFile::finish() {
    for (const auto& [path, dataset] : catalog_.datasets) {
        const Handle object(H5Oopen(file_, path.c_str(), H5P_DEFAULT), H5Oclose, "H5Oopen");
        write_checksum(object, checksum_key, dataset.checksum.value());
    }
    {
        const Handle root(H5Oopen(file_, "/", H5P_DEFAULT), H5Oclose, "H5Oopen");
        write_checksum(root, digest_key, digest_of(catalog_));
    }
    SWITCHYARD_HDF5(H5Fclose(file_.release()));
    return size_of_file(memory_, "the structure in memory");
}

void StructureFile::write_to(int fd) const {
    std::vector<ByteRange> values;
    for (const auto& [path, dataset] : catalog_.datasets)
        if (dataset.size() > 0) values.push_back({dataset.offset, dataset.offset + dataset.bytes()});
    const std::uint64_t end = size_of_file(memory_, "the structure in memory");
    values.push_back({end, end});
    std::sort(values.begin(), values.end(),
              [](const ByteRange& a, const ByteRange& b) { return a.begin < b.begin; });
    std::vector<std::byte> block;
    std::uint64_t begin = 0;
    for (const ByteRange& next : values) {
        for (const ByteRange& stored : stored_ranges(memory_, {begin, next.begin})) {
            block.resize(stored.size());
            std::string error = read_fully(memory_, block.data(), block.size(), stored.begin);
            if (error.empty()) error = write_fully(fd, block.data(), block.size(), stored.begin);
            require(error.empty(), "{}", error);
        }
        begin = next.end;
    }
    require(::ftruncate(fd, static_cast<off_t>(end)) == 0, "cannot set its length: {}", system_reason);
}

}  // namespace switchyard
