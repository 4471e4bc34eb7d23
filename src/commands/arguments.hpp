// The arguments of a command, sorted into files, the command's own options (--json, --ranks=4) and settings
// of the option table (--section.key=value), which are passed to parse_config unchanged.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace switchyard {

/// One of a command's own options, for parsing and help.
struct CommandOption {
    std::string name;   // without "--"
    std::string value;  // the text after "=" in the help; empty: the option is a flag
    std::string help;
};

struct Arguments {
    std::vector<std::string> files;
    std::vector<std::string> settings;
    std::map<std::string, std::string> options;

    bool has(const std::string& option) const { return options.count(option) > 0; }
    std::string text(const std::string& option, const std::string& otherwise) const;
    /// Throws UserError if the value is not a number or lies outside [minimum, maximum].
    std::int64_t integer(const std::string& option, std::int64_t otherwise, std::int64_t minimum,
                         std::int64_t maximum = std::int64_t{1} << 53) const;
    double real(const std::string& option, double otherwise, double minimum, double maximum) const;
};

/// Throws UserError for an option that the command does not have (suggesting the nearest), and for a missing
/// or unexpected value.
Arguments parse_arguments(const std::string& command, const std::vector<std::string>& words,
                          const std::vector<CommandOption>& options);

}  // namespace switchyard
