// HDF5 converts between types and truncates values that do not fit, so an attribute is read as its stored
// type or refused.
#include "io/files/hdf5_attributes.hpp"

#include "core/error.hpp"

namespace switchyard::hdf5 {
namespace {

struct Opened {
    Handle attribute, type;
    bool is(hid_t standard) const { return H5Tequal(type, standard) > 0; }
    bool is_text() const { return H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0; }
};

Opened open_attribute(hid_t object, const std::string& key) {
    require(has_attribute(object, key), "attribute {} is missing", key);
    Opened opened;
    opened.attribute = Handle(H5Aopen(object, key.c_str(), H5P_DEFAULT), H5Aclose, "H5Aopen");
    opened.type = Handle(H5Aget_type(opened.attribute), H5Tclose, "H5Aget_type");
    const Handle space(H5Aget_space(opened.attribute), H5Sclose, "H5Aget_space");
    require(H5Sget_simple_extent_npoints(space) == 1, "attribute {} is not a single value", key);
    return opened;
}

}  // namespace

bool has_attribute(hid_t object, const std::string& key) {
    const htri_t exists = H5Aexists(object, key.c_str());
    check(exists, "H5Aexists");
    return exists > 0;
}

AttributeKind attribute_kind(hid_t object, const std::string& key) {
    const Opened opened = open_attribute(object, key);
    if (opened.is_text()) return AttributeKind::text;
    if (opened.is(H5T_STD_I64LE)) return AttributeKind::integer;
    if (opened.is(H5T_STD_U64LE)) return AttributeKind::word;
    require(opened.is(H5T_IEEE_F64LE), "attribute {} has a type that no file of this program has", key);
    return AttributeKind::real;
}

std::int64_t integer_attribute(hid_t object, const std::string& key, std::int64_t least, std::int64_t most) {
    const Opened opened = open_attribute(object, key);
    require(opened.is(H5T_STD_I64LE), "attribute {} is not a 64-bit integer", key);
    std::int64_t value = 0;
    SWITCHYARD_HDF5(H5Aread(opened.attribute, H5T_NATIVE_INT64, &value));
    require(value >= least && value <= most, "attribute {} is {} (it must be from {} to {})", key, value,
            least, most);
    return value;
}

std::uint64_t word_attribute(hid_t object, const std::string& key) {
    const Opened opened = open_attribute(object, key);
    require(opened.is(H5T_STD_U64LE), "attribute {} is not a 64-bit word", key);
    std::uint64_t value = 0;
    SWITCHYARD_HDF5(H5Aread(opened.attribute, H5T_NATIVE_UINT64, &value));
    return value;
}

double real_attribute(hid_t object, const std::string& key) {
    const Opened opened = open_attribute(object, key);
    require(opened.is(H5T_IEEE_F64LE), "attribute {} is not a 64-bit real number", key);
    double value = 0;
    SWITCHYARD_HDF5(H5Aread(opened.attribute, H5T_NATIVE_DOUBLE, &value));
    return value;
}

std::string text_attribute(hid_t object, const std::string& key, std::size_t most_bytes) {
    const Opened opened = open_attribute(object, key);
    require(opened.is_text(), "attribute {} is not text of fixed length", key);
    const std::size_t bytes = H5Tget_size(opened.type);
    require(bytes <= most_bytes && bytes <= H5Aget_storage_size(opened.attribute),
            "attribute {} has {} bytes (more than are stored, or than the {} that are read)", key, bytes,
            most_bytes);
    std::string text(bytes, '\0');
    SWITCHYARD_HDF5(H5Aread(opened.attribute, opened.type, text.data()));
    text.resize(text.find_last_not_of('\0') + 1);
    return text;
}

}  // namespace switchyard::hdf5
