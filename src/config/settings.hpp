// Configuration files and command lines as lists of settings, and the quoting of values in files.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

struct Setting {
    std::string key;     // "section.key"
    std::string value;   // as meant, without quotes
    std::string origin;  // "run.cfg:12" or "the command line": for messages
};

/// Lines `[section]` and `key = value`; a # at the start of a line or after a space begins a comment. A
/// value that begins with a double quote ends at the next one and may hold anything; \" \\ \n \r \t stand for
/// themselves.
std::vector<Setting> settings_of_file(const std::string& text, const std::string& file_name,
                                      const std::vector<std::string>& known_keys);

/// Arguments --section.key=value; the value is taken as it is.
std::vector<Setting> settings_of_arguments(const std::vector<std::string>& arguments,
                                           const std::vector<std::string>& known_keys);

/// The value as settings_of_file reads it back: in quotes where it would not survive bare.
std::string quoted_where_needed(const std::string& value);

}  // namespace switchyard
