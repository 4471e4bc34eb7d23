// Attributes, checksums and hyperslabs of token files.
#include "io/tokens/token_format.hpp"

#include "core/error.hpp"

namespace switchyard::token_format {
namespace {

using hdf5::Handle;

void write_scalar(hid_t object, const char* name, hid_t file_type, hid_t memory_type, const void* value) {
    const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    const Handle attribute(H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                           "H5Acreate2");
    SWITCHYARD_HDF5(H5Awrite(attribute, memory_type, value));
}

template <class T>
T read_number(hid_t object, const char* name, hid_t memory_type) {
    const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose, "H5Aopen");
    const Handle space(H5Aget_space(attribute), H5Sclose, "H5Aget_space");
    require(H5Sget_simple_extent_npoints(space) == 1, "attribute `{}` is not one number", name);
    T value{};
    SWITCHYARD_HDF5(H5Aread(attribute, memory_type, &value));
    return value;
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

bool has_attribute(hid_t object, const char* name) {
    const htri_t exists = H5Aexists(object, name);
    hdf5::check(exists, "H5Aexists");
    return exists > 0;
}

std::int64_t read_integer(hid_t object, const char* name) {
    return read_number<std::int64_t>(object, name, H5T_NATIVE_INT64);
}

std::uint64_t read_unsigned(hid_t object, const char* name) {
    return read_number<std::uint64_t>(object, name, H5T_NATIVE_UINT64);
}

std::string read_text(hid_t object, const char* name) {
    const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose, "H5Aopen");
    const Handle type(H5Aget_type(attribute), H5Tclose, "H5Aget_type");
    require(H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0,
            "attribute `{}` is not a string of fixed length", name);
    std::string value(H5Tget_size(type), '\0');
    SWITCHYARD_HDF5(H5Aread(attribute, type, value.data()));
    value.resize(value.find_last_not_of('\0') + 1);
    return value;
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
    const hsize_t offset = begin, size = count;
    const Handle file_space(H5Dget_space(dataset), H5Sclose, "H5Dget_space");
    SWITCHYARD_HDF5(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &offset, nullptr, &size, nullptr));
    const Handle memory_space(H5Screate_simple(1, &size, nullptr), H5Sclose, "H5Screate_simple");
    SWITCHYARD_HDF5(H5Dread(dataset, type, memory_space, file_space, H5P_DEFAULT, out));
}

}  // namespace switchyard::token_format
