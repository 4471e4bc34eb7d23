// Attributes of HDF5 files, read as what they must be: the one reader, so that no number of a file is
// believed before it is looked at. Whoever knows the file puts its name before what these throw. Private to
// io/.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "io/files/hdf5.hpp"

namespace switchyard::hdf5 {

inline constexpr std::size_t longest_text = 64 << 20;

/// What kind of value an attribute holds: one integer, one unsigned 64-bit word, one real number, one text.
enum class AttributeKind { integer, word, real, text };
AttributeKind attribute_kind(hid_t object, const std::string& key);

bool has_attribute(hid_t object, const std::string& key);

/// Each throws UserError "attribute KEY ..." where it is missing, of another type, not one value, or out of
/// range.
std::int64_t integer_attribute(hid_t object, const std::string& key,
                               std::int64_t least = std::numeric_limits<std::int64_t>::min(),
                               std::int64_t most = std::numeric_limits<std::int64_t>::max());
std::uint64_t word_attribute(hid_t object, const std::string& key);
double real_attribute(hid_t object, const std::string& key);
/// Of fixed length; zeros at its end are filling.
std::string text_attribute(hid_t object, const std::string& key, std::size_t most_bytes = longest_text);

}  // namespace switchyard::hdf5
