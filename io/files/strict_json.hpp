// Reads JSON files of unknown origin. Malformed text, bytes that are not UTF-8, repeated keys and deep
// nesting are errors that name the file.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace switchyard {

/// Throws UserError "`file` ..." unless `text` is one JSON object.
nlohmann::json parse_json_object(std::string_view text, const std::string& file);

/// The same for a file of at most 100 MB.
nlohmann::json read_json_object(const std::string& path);

/// A name from such a file in the form for messages: quoted, with control characters escaped, at most 120
/// bytes.
std::string quoted(const std::string& name);

}  // namespace switchyard
