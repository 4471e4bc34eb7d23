// Configuration files and command lines as lists of settings, and the quoting of values in files.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

struct Setting {
    std::string key;     // "section.key"
    std::string value;   // without quotes
    std::string origin;  // "run.cfg:12" or "the command line", for messages
};

/// Parses lines `[section]` and `key = value`. A # at the start of a line or after a space begins a comment.
/// A value that begins with a double quote ends at the next one and may hold anything; the escapes \" \\ \n
/// \r \t are known.
std::vector<Setting> settings_of_file(const std::string& text, const std::string& file_name,
                                      const std::vector<std::string>& known_keys);

/// Parses arguments --section.key=value; the value is taken unchanged.
std::vector<Setting> settings_of_arguments(const std::vector<std::string>& arguments,
                                           const std::vector<std::string>& known_keys);

/// The value in the form that settings_of_file reads back: quoted if necessary.
std::string quoted_where_needed(const std::string& value);

}  // namespace switchyard
