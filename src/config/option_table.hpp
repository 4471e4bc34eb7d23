// The option table: every key once, with name, default, unit and one line of help. It serves the
// configuration file, the command line, --help, --dump-config and the text stored in checkpoints.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace switchyard {

/// A key that a method declares beside its code. It has the same types as the built-in keys.
struct MethodOption {
    enum class Type { integer, real, text, boolean };
    std::string key{};  // without "method."
    Type type = Type::real;
    std::string default_value{}, unit{}, help{};
    double minimum = -1e300, maximum = 1e300;  // inclusive; numbers only
    std::vector<std::string> choices{};        // text only; empty: any
};

/// What the registry knows of a method. It is passed as an argument, so that config does not include methods.
struct MethodOptions {
    std::string name{}, help{};
    std::vector<MethodOption> options{};
    double lr = 1e-3, dense_lr = 1e-3;  // the values of optim.lr = auto and optim.dense_lr = auto
};

struct ParsedConfig {
    Config config;
    std::vector<std::string> given_keys;  // set by file or command line, "section.key"
};

/// Parses `file_text` ("" for none; `file_name` for messages), then `arguments` ("--section.key=value"). The
/// last value of a key counts. Fills the preset's sizes into fields that are zero, and the method's defaults
/// into method.options. Throws UserError for an unknown key (suggesting the nearest), a wrong type, a value
/// out of range, a key that the method does not use, an unknown preset or method. Does not look at files or
/// ranks.
ParsedConfig parse_config(const std::string& file_text, const std::string& file_name,
                          const std::vector<std::string>& arguments,
                          const std::vector<MethodOptions>& methods);

/// "[section]\nkey = value\n..." with every key in table order; parse_config of it gives the same Config.
std::string config_text(const Config&, const std::vector<MethodOptions>& methods);

/// Like config_text, with unit and help after each key: for --dump-config and --help.
std::string annotated_config_text(const Config&, const std::vector<MethodOptions>& methods);

/// Checks everything that needs no file: sizes positive, heads and key-value heads divisible by tp, hidden
/// size by heads, ranks by tp, global_batch by dp x micro_batch, ... Throws UserError. vocab_size must be
/// set.
void validate(const Config&, int ranks);
/// Refuses paths that were meant for a shell, or for another language, and would make a folder of that name.
/// Not for stored configurations, because such a run may exist. Throws UserError.
void check_paths(const Config&);

/// A difference between a stored and a new configuration.
struct ConfigChange {
    std::string key, stored, requested;
    bool allowed = false;  // on resume (design section 7.4)
};
/// All keys whose text differs, in table order.
std::vector<ConfigChange> compare_configs(const Config& stored, const Config& requested,
                                          const std::vector<MethodOptions>& methods);

/// parse_config for a text that a run stored. Keys that were added later get the value that applied then.
Config parse_stored_config(const std::string& text, const std::string& name,
                           const std::vector<std::string>& arguments,
                           const std::vector<MethodOptions>& methods);

/// Keys that are `auto` in `requested`, or that were added later and are not among `given`, get the value in
/// `stored`, so that a run goes on as it began, whatever the defaults are now.
void take_stored_values(Config& requested, const std::vector<std::string>& given, const Config& stored,
                        const std::vector<MethodOptions>& methods);

/// The text of one key for scripts: no quotes, no unit. Throws UserError naming the nearest key.
std::string value_of(const Config&, const std::string& key, const std::vector<MethodOptions>& methods);

/// Typed access to method.options, which parse_config fills with defaults.
std::int64_t option_integer(const MethodConfig&, const std::string& key);
double option_real(const MethodConfig&, const std::string& key);
bool option_boolean(const MethodConfig&, const std::string& key);
const std::string& option_text(const MethodConfig&, const std::string& key);

}  // namespace switchyard
