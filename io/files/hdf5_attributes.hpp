// Reads attributes of HDF5 files as the type that they must have. Everything goes through this reader, so
// that no number of a file is used unchecked. The caller, who knows the file, puts its name before the
// messages. Private to io/.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "io/files/hdf5.hpp"

namespace switchyard::hdf5 {

inline constexpr std::size_t longest_text = 64 << 20;

/// The kinds of values: one integer, one unsigned 64-bit word, one real number, one text.
enum class AttributeKind { integer, word, real, text };
AttributeKind attribute_kind(hid_t object, const std::string& key);

bool has_attribute(hid_t object, const std::string& key);

/// Each throws UserError "attribute KEY ..." if the attribute is missing, of another type, not a single
/// value, or out of range.
std::int64_t integer_attribute(hid_t object, const std::string& key,
                               std::int64_t least = std::numeric_limits<std::int64_t>::min(),
                               std::int64_t most = std::numeric_limits<std::int64_t>::max());
std::uint64_t word_attribute(hid_t object, const std::string& key);
double real_attribute(hid_t object, const std::string& key);
/// Of fixed length; zeros at the end are padding.
std::string text_attribute(hid_t object, const std::string& key, std::size_t most_bytes = longest_text);

}  // namespace switchyard::hdf5
