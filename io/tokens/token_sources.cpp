// The table of sources: a compound dataset (name: UTF-8 of fixed length, weight: f64, documents: int64),
// which other programs see as a table. It is small, so it is read and checked as a whole.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.hpp"
#include "io/files/hdf5_attributes.hpp"
#include "io/files/hdf5_objects.hpp"
#include "io/tokens/token_format.hpp"

namespace switchyard::token_format {
namespace {

using hdf5::Handle;

constexpr std::size_t longest_name = 4096, most_bytes = 256 << 20;
constexpr std::uint64_t most_sources = 1 << 20;

/// A row in memory is the name padded with zeros, then weight and documents.
struct RowType {
    std::size_t name_bytes, row_bytes;
    Handle type;
};

RowType row_type(std::size_t name_bytes) {
    RowType row{name_bytes, name_bytes + sizeof(double) + sizeof(std::int64_t), {}};
    const Handle name(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy");
    SWITCHYARD_HDF5(H5Tset_size(name, name_bytes));
    SWITCHYARD_HDF5(H5Tset_cset(name, H5T_CSET_UTF8));
    SWITCHYARD_HDF5(H5Tset_strpad(name, H5T_STR_NULLPAD));
    row.type = Handle(H5Tcreate(H5T_COMPOUND, row.row_bytes), H5Tclose, "H5Tcreate");
    SWITCHYARD_HDF5(H5Tinsert(row.type, "name", 0, name));
    SWITCHYARD_HDF5(H5Tinsert(row.type, "weight", name_bytes, H5T_IEEE_F64LE));
    SWITCHYARD_HDF5(H5Tinsert(row.type, "documents", name_bytes + sizeof(double), H5T_STD_I64LE));
    return row;
}

/// Checksum of the rows without the padding of names, which differs between tables of the same content.
std::uint64_t checksum_of(const std::vector<TokenSource>& sources) {
    std::string bytes;
    for (const TokenSource& source : sources) {
        bytes += source.name + '\0';
        bytes.append(reinterpret_cast<const char*>(&source.weight), sizeof source.weight);
        bytes.append(reinterpret_cast<const char*>(&source.documents), sizeof source.documents);
    }
    return checksum_bytes(bytes);
}

/// Length in bytes of the names in a stored table.
std::size_t stored_name_bytes(hid_t dataset) {
    const Handle type(H5Dget_type(dataset), H5Tclose, "H5Dget_type");
    require(H5Tget_class(type) == H5T_COMPOUND && H5Tget_nmembers(type) == 3,
            "{} is not a table of name, weight and documents", sources_path);
    const int index = H5Tget_member_index(type, "name");
    require(
        index >= 0 && H5Tget_member_index(type, "weight") >= 0 && H5Tget_member_index(type, "documents") >= 0,
        "{} is not a table of name, weight and documents", sources_path);
    const Handle name(H5Tget_member_type(type, static_cast<unsigned>(index)), H5Tclose, "H5Tget_member_type");
    require(H5Tget_class(name) == H5T_STRING && H5Tis_variable_str(name) == 0,
            "{}: name is not a string of fixed length", sources_path);
    return H5Tget_size(name);
}

}  // namespace

void write_sources(hid_t file, const std::vector<TokenSource>& sources) {
    std::size_t name_bytes = 1;
    for (const TokenSource& source : sources)
        name_bytes = std::clamp(source.name.size(), name_bytes, longest_name);
    const RowType row = row_type(name_bytes);
    std::vector<TokenSource> stored = sources;
    std::string rows;
    for (TokenSource& source : stored) {
        if (source.name.size() > name_bytes) source.name.resize(name_bytes);
        std::string bytes = source.name;
        bytes.resize(name_bytes, '\0');
        bytes.append(reinterpret_cast<const char*>(&source.weight), sizeof source.weight);
        bytes.append(reinterpret_cast<const char*>(&source.documents), sizeof source.documents);
        rows += bytes;
    }
    const hsize_t size = sources.size();
    const Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose, "H5Screate_simple");
    const Handle dataset(
        H5Dcreate2(file, sources_path, row.type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose,
        "H5Dcreate2");
    SWITCHYARD_HDF5(H5Dwrite(dataset, row.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows.data()));
    write_attribute(dataset, "checksum", checksum_of(stored));
}

std::vector<TokenSource> read_sources(hid_t file) {
    const htri_t exists = H5Lexists(file, sources_path, H5P_DEFAULT);
    hdf5::check(exists, "H5Lexists");
    if (exists == 0) return {};
    hsize_t file_bytes = 0;
    SWITCHYARD_HDF5(H5Fget_filesize(file, &file_bytes));
    const Handle dataset = hdf5::open_object(file, sources_path);
    const std::uint64_t count = hdf5::checked_shape(dataset, 1, file_bytes, longest_name + 16)[0];
    const std::size_t name_bytes = stored_name_bytes(dataset);
    require(name_bytes <= longest_name && count <= most_sources && count * (name_bytes + 16) <= most_bytes,
            "{} has {} rows with names of {} bytes, more than are read", sources_path, count, name_bytes);
    const RowType row = row_type(name_bytes);
    std::string rows(count * row.row_bytes, '\0');
    read_range(dataset, row.type, 0, count, rows.data());
    std::vector<TokenSource> sources(count);
    for (std::size_t i = 0; i < count; ++i) {
        const char* const at = rows.data() + i * row.row_bytes;
        sources[i].name.assign(at, ::strnlen(at, name_bytes));
        std::memcpy(&sources[i].weight, at + name_bytes, sizeof(double));
        std::memcpy(&sources[i].documents, at + name_bytes + sizeof(double), sizeof(std::int64_t));
        require(std::isfinite(sources[i].weight) && sources[i].weight >= 0 && sources[i].documents >= 0,
                "{}: row {} has weight {} and {} documents", sources_path, i, sources[i].weight,
                sources[i].documents);
    }
    require(checksum_of(sources) == hdf5::word_attribute(dataset, "checksum"), "{} does not fit its checksum",
            sources_path);
    return sources;
}

}  // namespace switchyard::token_format
