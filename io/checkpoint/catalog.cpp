// Reading the structure of a file with HDF5. Whatever a damaged file makes HDF5 return becomes a UserError.
#include "io/checkpoint/catalog.hpp"

#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/rng.hpp"

namespace switchyard {
namespace {

using hdf5::Handle;
using nlohmann::json;

constexpr int deepest_group = 16;

/// Digest of a sequence of words and texts, each with its length.
class Digest {
  public:
    void add(std::uint64_t word) { state_ = mix64(state_ * 3 + 0x9E3779B97F4A7C15ull + word); }
    void add(const std::string& text) {
        add(text.size());
        for (std::size_t i = 0; i < text.size(); i += 8) {
            std::uint64_t word = 0;
            std::memcpy(&word, text.data() + i, std::min<std::size_t>(8, text.size() - i));
            add(word);
        }
    }
    void add(const Attribute& value) {
        add(value.index());
        if (const auto* integer = std::get_if<std::int64_t>(&value))
            add(static_cast<std::uint64_t>(*integer));
        if (const auto* real = std::get_if<double>(&value)) add(std::bit_cast<std::uint64_t>(*real));
        if (const auto* text = std::get_if<std::string>(&value)) add(*text);
    }
    std::uint64_t value() const { return state_; }

  private:
    std::uint64_t state_ = 0;
};

herr_t take_link(hid_t, const char* name, const H5L_info_t*, void* names) {
    static_cast<std::vector<std::string>*>(names)->push_back(name);
    return 0;
}

herr_t take_attribute(hid_t, const char* name, const H5A_info_t*, void* names) {
    static_cast<std::vector<std::string>*>(names)->push_back(name);
    return 0;
}

Handle open_attribute(hid_t object, const std::string& key) {
    return {H5Aopen(object, key.c_str(), H5P_DEFAULT), H5Aclose, "H5Aopen"};
}

std::uint64_t read_checksum(hid_t object, const std::string& key) {
    const Handle attribute = open_attribute(object, key);
    const Handle space(H5Aget_space(attribute), H5Sclose, "H5Aget_space");
    const Handle type(H5Aget_type(attribute), H5Tclose, "H5Aget_type");
    require(H5Tequal(type, H5T_STD_U64LE) > 0 && H5Sget_simple_extent_npoints(space) == 1,
            "attribute {} is no 64-bit checksum", key);
    std::uint64_t value = 0;
    SWITCHYARD_HDF5(H5Aread(attribute, H5T_NATIVE_UINT64, &value));
    return value;
}

Attribute read_attribute(hid_t object, const std::string& key) {
    const Handle attribute = open_attribute(object, key);
    const Handle space(H5Aget_space(attribute), H5Sclose, "H5Aget_space");
    const Handle type(H5Aget_type(attribute), H5Tclose, "H5Aget_type");
    require(H5Sget_simple_extent_npoints(space) == 1, "attribute {} is not a single value", key);
    const H5T_class_t kind = H5Tget_class(type);
    if (kind == H5T_STRING && H5Tis_variable_str(type) == 0) {
        std::string text(H5Tget_size(type), '\0');
        SWITCHYARD_HDF5(H5Aread(attribute, type, text.data()));
        text.resize(text.find_last_not_of('\0') + 1);
        return text;
    }
    if (H5Tequal(type, H5T_STD_I64LE) > 0) {
        std::int64_t value = 0;
        SWITCHYARD_HDF5(H5Aread(attribute, H5T_NATIVE_INT64, &value));
        return value;
    }
    require(H5Tequal(type, H5T_IEEE_F64LE) > 0, "attribute {} has a type that checkpoints do not use", key);
    double value = 0;
    SWITCHYARD_HDF5(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value));
    return value;
}

DType dtype_of(hid_t type) {
    for (DType dtype : {DType::f32, DType::f64, DType::i16, DType::i32, DType::i64, DType::u8})
        if (H5Tequal(type, file_type(dtype)) > 0) return dtype;
    fail("its type is none that checkpoints use");
}

StoredDataset read_dataset(hid_t object) {
    StoredDataset dataset;
    const Handle type(H5Dget_type(object), H5Tclose, "H5Dget_type");
    dataset.dtype = dtype_of(type);
    const Handle space(H5Dget_space(object), H5Sclose, "H5Dget_space");
    const int rank = H5Sget_simple_extent_ndims(space);
    require(rank == 1 || rank == 2, "it has {} dimensions", rank);
    hsize_t extents[2] = {};
    SWITCHYARD_HDF5(H5Sget_simple_extent_dims(space, extents, nullptr));
    dataset.shape.assign(extents, extents + rank);
    const Handle creation(H5Dget_create_plist(object), H5Pclose, "H5Dget_create_plist");
    const haddr_t offset = H5Dget_offset(object);
    require(H5Pget_layout(creation) == H5D_CONTIGUOUS && (dataset.size() == 0 || offset != HADDR_UNDEF),
            "it is not stored contiguously (another tool rewrote the file?); use the original");
    dataset.offset = dataset.size() == 0 ? 0 : offset;
    return dataset;
}

void read_object(hid_t file, const std::string& path, int depth, Catalog& catalog) try {
    require(depth <= deepest_group, "groups are nested too deeply");
    const Handle object(H5Oopen(file, path.c_str(), H5P_DEFAULT), H5Oclose, "H5Oopen");
    const bool is_dataset = H5Iget_type(object) == H5I_DATASET;
    require(is_dataset || H5Iget_type(object) == H5I_GROUP, "it is neither a group nor a dataset");
    if (is_dataset) catalog.datasets[path] = read_dataset(object);

    auto& attributes = catalog.attributes[path];
    std::vector<std::string> keys, links;
    // In native order: in any other HDF5 1.10.8 builds a table, and frees it half filled where metadata are
    // damaged.
    hsize_t position = 0;
    SWITCHYARD_HDF5(H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, &position, take_attribute, &keys));
    for (const std::string& key : keys) {
        if (is_dataset && key == checksum_key)
            catalog.datasets[path].checksum = read_checksum(object, key);
        else if (path == "/" && key == digest_key)
            catalog.digest = read_checksum(object, key);
        else
            attributes[key] = read_attribute(object, key);
    }
    if (is_dataset) return;
    position = 0;
    SWITCHYARD_HDF5(H5Literate(object, H5_INDEX_NAME, H5_ITER_NATIVE, &position, take_link, &links));
    for (const std::string& name : links)
        read_object(file, (path == "/" ? path : path + "/") + name, depth + 1, catalog);
} catch (const UserError& error) {
    const std::string text = error.what();
    throw UserError(text.starts_with('/') ? text : path + ": " + text);  // names the innermost object
}

}  // namespace

std::int64_t StoredDataset::size() const {
    std::int64_t product = 1;
    for (std::int64_t extent : shape) product *= extent;
    return product;
}

std::uint64_t digest_of(const Catalog& catalog) {
    Digest digest;
    for (const auto& [path, attributes] : catalog.attributes) {
        digest.add(path);
        digest.add(attributes.size());
        for (const auto& [key, value] : attributes) {
            digest.add(key);
            digest.add(value);
        }
        const auto found = catalog.datasets.find(path);
        digest.add(found != catalog.datasets.end());
        if (found == catalog.datasets.end()) continue;
        digest.add(std::string(name_of(found->second.dtype)));
        digest.add(found->second.shape.size());
        for (std::int64_t extent : found->second.shape) digest.add(static_cast<std::uint64_t>(extent));
        digest.add(found->second.checksum.has_value());
        digest.add(found->second.checksum.value_or(0));
    }
    return digest.value();
}

Catalog read_catalog(const std::string& path) {
    hdf5::silence_errors();
    struct stat status {};
    require(::stat(path.c_str(), &status) == 0, "cannot read {} ({}); check the path", path, system_reason);
    require(S_ISREG(status.st_mode), "cannot read {} (it is not a file); check the path", path);
    try {
        Catalog catalog;
        catalog.file_bytes = static_cast<std::uint64_t>(status.st_size);
        const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate");
        SWITCHYARD_HDF5(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG));
        hdf5::no_locking(access);
        const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose, "H5Fopen");
        haddr_t end = 0;
        SWITCHYARD_HDF5(H5Fget_eoa(file, &end));
        catalog.end_of_contents = end;
        read_object(file, "/", 0, catalog);
        for (const auto& [name, dataset] : catalog.datasets)
            require(dataset.offset <= catalog.file_bytes &&
                        dataset.bytes() <= catalog.file_bytes - dataset.offset,
                    "dataset {} reaches beyond the end of the file", name);
        return catalog;
    } catch (const UserError& error) {
        fail("cannot read {} as a checkpoint ({}); it is damaged, incomplete or of another kind", path,
             error.what());
    }
}

void check_catalog(const Catalog& catalog, const std::string& path) {
    require(catalog.digest.has_value(),
            "{} is not a checkpoint of this program (its / has no attribute {}); check the path", path,
            digest_key);
    require(
        *catalog.digest == digest_of(catalog),
        "{} is damaged or was changed (its attributes and list of datasets do not fit their checksum); use "
        "another checkpoint",
        path);
    require(catalog.file_bytes == catalog.end_of_contents,
            "{} is damaged or was changed (it has {} bytes instead of {}); use another checkpoint", path,
            catalog.file_bytes, catalog.end_of_contents);
}

std::string to_bytes(const Catalog& catalog) {
    json objects = json::object(), datasets = json::object();
    for (const auto& [path, attributes] : catalog.attributes) {
        json& object = objects[path] = json::object();
        for (const auto& [key, value] : attributes)
            std::visit([&, &key = key](const auto& typed) { object[key] = typed; }, value);
    }
    for (const auto& [path, d] : catalog.datasets)
        datasets[path] = {static_cast<int>(d.dtype), d.shape, d.offset, d.checksum.has_value(),
                          d.checksum.value_or(0)};
    std::string bytes;
    json::to_cbor(json{objects, datasets, catalog.file_bytes, catalog.end_of_contents}, bytes);
    return bytes;
}

Catalog catalog_from_bytes(const std::string& bytes) {
    const json all = json::from_cbor(bytes);
    Catalog catalog;
    for (const auto& [path, object] : all[0].items()) {
        auto& attributes = catalog.attributes[path];
        for (const auto& [key, value] : object.items()) {
            if (value.is_string())
                attributes[key] = value.get<std::string>();
            else if (value.is_number_float())
                attributes[key] = value.get<double>();
            else
                attributes[key] = value.get<std::int64_t>();
        }
    }
    for (const auto& [path, d] : all[1].items()) {
        StoredDataset& dataset = catalog.datasets[path];
        dataset.dtype = static_cast<DType>(d[0].get<int>());
        dataset.shape = d[1].get<std::vector<std::int64_t>>();
        dataset.offset = d[2].get<std::uint64_t>();
        if (d[3].get<bool>()) dataset.checksum = d[4].get<std::uint64_t>();
    }
    catalog.file_bytes = all[2].get<std::uint64_t>();
    catalog.end_of_contents = all[3].get<std::uint64_t>();
    return catalog;
}

void write_attribute(hid_t object, const std::string& key, const Attribute& value) {
    const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    const auto write = [&](hid_t stored, hid_t memory, const void* data) {
        if (H5Aexists(object, key.c_str()) > 0) SWITCHYARD_HDF5(H5Adelete(object, key.c_str()));
        const Handle attribute(H5Acreate2(object, key.c_str(), stored, space, H5P_DEFAULT, H5P_DEFAULT),
                               H5Aclose, "H5Acreate2");
        SWITCHYARD_HDF5(H5Awrite(attribute, memory, data));
    };
    if (const auto* integer = std::get_if<std::int64_t>(&value))
        write(H5T_STD_I64LE, H5T_NATIVE_INT64, integer);
    if (const auto* real = std::get_if<double>(&value)) write(H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, real);
    if (const auto* text = std::get_if<std::string>(&value)) {
        const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy");
        SWITCHYARD_HDF5(H5Tset_size(type, std::max<std::size_t>(1, text->size())));
        SWITCHYARD_HDF5(H5Tset_strpad(type, H5T_STR_NULLPAD));
        SWITCHYARD_HDF5(H5Tset_cset(type, H5T_CSET_UTF8));
        write(type, type, text->c_str());
    }
}

void write_checksum(hid_t object, const char* key, std::uint64_t value) {
    const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    const Handle attribute(H5Acreate2(object, key, H5T_STD_U64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                           "H5Acreate2");
    SWITCHYARD_HDF5(H5Awrite(attribute, H5T_NATIVE_UINT64, &value));
}

hid_t file_type(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return H5T_IEEE_F32LE;
        case DType::f64:
            return H5T_IEEE_F64LE;
        case DType::i16:
            return H5T_STD_I16LE;
        case DType::i32:
            return H5T_STD_I32LE;
        case DType::i64:
            return H5T_STD_I64LE;
        case DType::u8:
            return H5T_STD_U8LE;
        case DType::bf16:
            break;  // stored as f32
    }
    throw InternalError("internal error: bf16 is not a stored type");
}

}  // namespace switchyard
