// A catalog's digest, its form as bytes, and the attributes that are written with HDF5.
#include "io/checkpoint/catalog.hpp"

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/rng.hpp"

namespace switchyard {
namespace {

using hdf5::Handle;
using nlohmann::json;

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
    json::to_cbor(json{objects, datasets, catalog.file_bytes, catalog.end_of_contents,
                       catalog.digest.has_value(), catalog.digest.value_or(0)},
                  bytes);
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
    if (all[4].get<bool>()) catalog.digest = all[5].get<std::uint64_t>();
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
