// Values take no memory, because they are never written into this file.
#include "io/checkpoint/structure_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <vector>

#include "core/error.hpp"
#include "io/checkpoint/part.hpp"
#include "io/files/files.hpp"

namespace switchyard {
namespace {

using hdf5::Handle;

constexpr hsize_t alignment_bytes = 8;  // no value is cut by the end of a window
constexpr hsize_t least_block_bytes = 2048, most_block_bytes = 4 << 20;

}  // namespace

StructureFile::StructureFile(std::uint64_t expected_bytes) {
    const Handle access = hdf5::file_access();
    memory_.use_for(access);
    SWITCHYARD_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST));
    SWITCHYARD_HDF5(H5Pset_alignment(access, 1, alignment_bytes));
    SWITCHYARD_HDF5(H5Pset_meta_block_size(
        access, std::clamp<hsize_t>(expected_bytes, least_block_bytes, most_block_bytes)));
    const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "H5Pcreate");
    SWITCHYARD_HDF5(H5Pset_obj_track_times(creation, false));
    file_ = Handle(H5Fcreate("checkpoint structure", H5F_ACC_TRUNC, creation, access), H5Fclose, "H5Fcreate");
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
    return memory_.size();
}

void StructureFile::write_to(int fd) const {
    std::vector<ByteRange> values;
    for (const auto& [path, dataset] : catalog_.datasets)
        if (dataset.size() > 0) values.push_back({dataset.offset, dataset.offset + dataset.bytes()});
    const std::uint64_t end = memory_.size();
    values.push_back({end, end});
    std::sort(values.begin(), values.end(),
              [](const ByteRange& a, const ByteRange& b) { return a.begin < b.begin; });
    std::vector<std::byte> block;
    std::uint64_t begin = 0;
    for (const ByteRange& next : values) {
        for (const ByteRange& stored : memory_.written({begin, next.begin})) {
            block.resize(stored.size());
            memory_.read(stored.begin, block.data(), block.size());
            const std::string error = write_fully(fd, block.data(), block.size(), stored.begin);
            require(error.empty(), "{}", error);
        }
        begin = next.end;
    }
    require(::ftruncate(fd, static_cast<off_t>(end)) == 0, "set its length: {}", system_reason);
}

}  // namespace switchyard
