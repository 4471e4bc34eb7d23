// Attributes, checksums and hyperslabs of token files.
#include "io/tokens/token_format.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "io/files/hdf5_attributes.hpp"
#include "io/files/hdf5_objects.hpp"

namespace switchyard::token_format {
namespace {

using hdf5::Handle;

void write_scalar(hid_t object, const char* name, hid_t file_type, hid_t memory_type, const void* value) {
    const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    const Handle attribute(H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                           "H5Acreate2");
    SWITCHYARD_HDF5(H5Awrite(attribute, memory_type, value));
}

}  // namespace

std::uint64_t checksum_bytes(const std::string& bytes) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
        sum += checksum_term(i, static_cast<unsigned char>(bytes[i]));
    return sum;
}

std::uint64_t fingerprint(const SplitChecksums& training, const SplitChecksums& validation) {
    std::uint64_t hash = 0;
    for (std::uint64_t part : {training.tokens, training.starts, validation.tokens, validation.starts}) {
        hash = checksum_term(hash, part);
    }
    return hash;
}

void write_attribute(hid_t object, const char* name, std::int64_t value) {
    write_scalar(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

void write_attribute(hid_t object, const char* name, std::uint64_t value) {
    write_scalar(object, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, &value);
}

void write_attribute(hid_t object, const char* name, double value) {
    write_scalar(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

void write_attribute(hid_t object, const char* name, const std::string& value) {
    const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy");
    SWITCHYARD_HDF5(H5Tset_size(type, value.empty() ? 1 : value.size()));
    SWITCHYARD_HDF5(H5Tset_cset(type, H5T_CSET_UTF8));
    SWITCHYARD_HDF5(H5Tset_strpad(type, H5T_STR_NULLPAD));
    write_scalar(object, name, type, type, value.empty() ? "\0" : value.data());
}

bool says_token_file(hid_t root) {
    return hdf5::has_attribute(root, "format") && hdf5::text_attribute(root, "format") == format_name;
}

OpenDataset open_dataset(hid_t file, const std::string& path,
                         std::initializer_list<std::size_t> element_bytes) try {
    hsize_t file_bytes = 0;
    SWITCHYARD_HDF5(H5Fget_filesize(file, &file_bytes));
    OpenDataset dataset{hdf5::open_object(file, path)};
    dataset.size = hdf5::checked_shape(dataset.handle, 1, file_bytes)[0];
    const Handle type(H5Dget_type(dataset.handle), H5Tclose, "H5Dget_type");
    require(H5Tget_class(type) == H5T_INTEGER && std::find(element_bytes.begin(), element_bytes.end(),
                                                           H5Tget_size(type)) != element_bytes.end(),
            "its values are not integers of {} bytes", fmt::join(element_bytes, " or "));
    return dataset;
} catch (const UserError& problem) {
    fail("{}: {}", path, problem.what());
}

std::uint64_t extent(hid_t dataset) {
    const Handle space(H5Dget_space(dataset), H5Sclose, "H5Dget_space");
    require(H5Sget_simple_extent_ndims(space) == 1, "dataset is not one-dimensional");
    hsize_t size = 0;
    H5Sget_simple_extent_dims(space, &size, nullptr);
    return size;
}

void read_range(hid_t dataset, hid_t type, std::uint64_t begin, std::uint64_t count, void* out) {
    if (count == 0) return;
    hdf5::require_stored(dataset, begin, count);
    const hsize_t offset = begin, size = count;
    const Handle file_space(H5Dget_space(dataset), H5Sclose, "H5Dget_space");
    SWITCHYARD_HDF5(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &offset, nullptr, &size, nullptr));
    const Handle memory_space(H5Screate_simple(1, &size, nullptr), H5Sclose, "H5Screate_simple");
    SWITCHYARD_HDF5(H5Dread(dataset, type, memory_space, file_space, H5P_DEFAULT, out));
}

}  // namespace switchyard::token_format
