// JSON from files of others: malformed text, bytes that are not UTF-8, a key given twice and deep nesting are
// errors that name the file.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace switchyard {

/// Throws UserError "`file` ..." unless `text` is one JSON object.
nlohmann::json parse_json_object(std::string_view text, const std::string& file);

/// The same of a file, of at most 100 MB.
nlohmann::json read_json_object(const std::string& path);

/// A name out of such a file, for messages: in quotes, control characters escaped, at most 120 bytes of it.
std::string quoted(const std::string& name);

}  // namespace switchyard
