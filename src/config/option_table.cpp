// Conversion between text and Config. Built-in keys (keys.cpp) and keys of methods follow the same rules; the
// keys of the chosen method come after method.name.
#include "config/option_table.hpp"

#include <algorithm>

#include "config/keys.hpp"
#include "config/presets.hpp"
#include "config/settings.hpp"
#include "config/value_rule.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

const char* const method_section = "method.";

bool contains(const std::vector<std::string>& texts, const std::string& text) {
    return std::find(texts.begin(), texts.end(), text) != texts.end();
}

const MethodOptions* find_method(const std::vector<MethodOptions>& methods, const std::string& name) {
    const auto found =
        std::find_if(methods.begin(), methods.end(), [&](const auto& m) { return m.name == name; });
    return found == methods.end() ? nullptr : &*found;
}

const MethodOption* find_option(const MethodOptions& method, const std::string& key) {
    for (const MethodOption& option : method.options)
        if (method_section + option.key == key) return &option;
    return nullptr;
}

const Key* find_built_in(const std::string& name) {
    for (const Key& key : built_in_keys())
        if (key.name == name) return &key;
    return nullptr;
}

std::vector<std::string> method_names(const std::vector<MethodOptions>& methods) {
    std::vector<std::string> names;
    for (const MethodOptions& method : methods) names.push_back(method.name);
    return names;
}

/// Every key once: the built-in ones, then those of the methods.
std::vector<std::string> known_keys(const std::vector<MethodOptions>& methods) {
    std::vector<std::string> names;
    for (const Key& key : built_in_keys()) names.push_back(key.name);
    for (const MethodOptions& method : methods)
        for (const MethodOption& option : method.options) {
            const std::string name = method_section + option.key;
            if (!contains(names, name)) names.push_back(name);
        }
    return names;
}

/// Reports a key of a method other than `chosen`.
[[noreturn]] void fail_unused(const Setting& setting, const std::string& chosen,
                              const std::vector<MethodOptions>& methods) {
    std::vector<std::string> users;
    for (const MethodOptions& method : methods)
        if (find_option(method, setting.key)) users.push_back(method.name);
    fail(
        "{} in {} is not used by method.name = {} (it would have no effect; methods that use it: {}); remove "
        "the key or choose another method",
        setting.key, setting.origin, chosen, fmt::join(users, ", "));
}

[[noreturn]] void fail_unknown(const Setting& setting, const MethodOptions& chosen,
                               const std::vector<MethodOptions>& methods) {
    if (contains(known_keys(methods), setting.key)) fail_unused(setting, chosen.name, methods);
    fail("unknown key {} in {} (a setting without effect would go unnoticed); did you mean {}?", setting.key,
         setting.origin, nearest(setting.key, known_keys({chosen})));
}

std::vector<Setting> all_settings(const std::string& file_text, const std::string& file_name,
                                  const std::vector<std::string>& arguments,
                                  const std::vector<MethodOptions>& methods) {
    const std::vector<std::string> keys = known_keys(methods);
    std::vector<Setting> settings = settings_of_file(file_text, file_name, keys);
    for (Setting& setting : settings_of_arguments(arguments, keys)) settings.push_back(std::move(setting));
    return settings;
}

const MethodOptions& chosen_method(const std::vector<Setting>& settings,
                                   const std::vector<MethodOptions>& methods) {
    std::string name = MethodConfig().name, origin = "the defaults";
    for (const Setting& setting : settings)
        if (setting.key == "method.name") {
            name = setting.value;
            origin = setting.origin;
        }
    const MethodOptions* method = find_method(methods, name);
    require(method != nullptr,
            "method.name = '{}' in {} is not a training method (there are: {}); did you mean '{}'?", name,
            origin, fmt::join(method_names(methods), ", "), nearest(name, method_names(methods)));
    return *method;
}

std::string default_text(const MethodOption& option, const MethodOptions& method) {
    return checked_value(rule_of(option), method_section + option.key, option.default_value,
                         "the defaults of " + method.name);
}

/// A key and its text in a configuration.
struct Entry {
    std::string name, text, unit, help;
    bool may_change_on_resume = false;
};

/// All keys in table order, those of the method after method.name. If `methods` lacks the method, its keys
/// come alphabetically.
std::vector<Entry> entries_of(const Config& config, const std::vector<MethodOptions>& methods) {
    std::vector<Entry> entries;
    for (const Key& key : built_in_keys()) {
        entries.push_back({key.name, key.text(config), key.unit, key.help, key.may_change_on_resume});
        if (key.name != "method.name") continue;
        const MethodOptions* method = find_method(methods, config.method.name);
        if (method == nullptr) {
            for (const auto& [name, text] : config.method.options)
                entries.push_back({method_section + name, text});
            continue;
        }
        for (const MethodOption& option : method->options) {
            const auto value = config.method.options.find(option.key);
            const bool given = value != config.method.options.end();
            entries.push_back({method_section + option.key,
                               given ? value->second : default_text(option, *method), option.unit,
                               option.help});
        }
    }
    return entries;
}

struct Name {
    std::string section, key;
};
Name split_name(const std::string& name) {
    const std::size_t dot = name.find('.');
    return {name.substr(0, dot), name.substr(dot + 1)};
}

std::string note_text(const std::string& unit, const std::string& help) {
    return unit.empty() ? help : fmt::format("[{}] {}", unit, help);
}

std::string sections_text(const Config& config, const std::vector<MethodOptions>& methods, bool annotated) {
    std::string text, section;
    for (const Entry& entry : entries_of(config, methods)) {
        const Name name = split_name(entry.name);
        if (name.section != section)
            text += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", name.section);
        section = name.section;
        const std::string line = fmt::format("{} = {}", name.key, quoted_where_needed(entry.text));
        const std::string note = annotated ? note_text(entry.unit, entry.help) : "";
        text += note.empty() ? line + "\n" : fmt::format("{:<32} # {}\n", line, note);
    }
    return text;
}

const std::string& option_value(const MethodConfig& method, const std::string& key) {
    const auto found = method.options.find(key);
    internal_check(found != method.options.end(), "method {} has no option '{}'", method.name, key);
    return found->second;
}

template <class T>
T option_number(const MethodConfig& method, const std::string& key) {
    T value{};
    const std::string& text = option_value(method, key);
    internal_check(read_number(text, value), "method.{} = '{}' is read as a number", key, text);
    return value;
}

}  // namespace

ParsedConfig parse_config(const std::string& file_text, const std::string& file_name,
                          const std::vector<std::string>& arguments,
                          const std::vector<MethodOptions>& methods) {
    const std::vector<Setting> settings = all_settings(file_text, file_name, arguments, methods);
    const MethodOptions& method = chosen_method(settings, methods);
    ParsedConfig parsed;
    Config& config = parsed.config;
    for (const MethodOption& option : method.options)
        config.method.options[option.key] = default_text(option, method);
    for (const Setting& setting : settings) {
        if (const Key* key = find_built_in(setting.key))
            key->assign(config, checked_value(key->rule, key->name, setting.value, setting.origin));
        else if (const MethodOption* option = find_option(method, setting.key))
            config.method.options[option->key] =
                checked_value(rule_of(*option), setting.key, setting.value, setting.origin);
        else
            fail_unknown(setting, method, methods);
        if (!contains(parsed.given_keys, setting.key)) parsed.given_keys.push_back(setting.key);
    }
    fill_preset(config.model);
    return parsed;
}

std::string config_text(const Config& config, const std::vector<MethodOptions>& methods) {
    return sections_text(config, methods, false);
}

std::string annotated_config_text(const Config& config, const std::vector<MethodOptions>& methods) {
    std::string text = sections_text(config, methods, true);
    text += "\n# Methods and the keys of [method] that each uses, with their defaults:\n";
    for (const MethodOptions& method : methods) {
        text += fmt::format("# {}: {} (auto: optim.lr = {}, optim.dense_lr = {})\n", method.name, method.help,
                            canonical_text(method.lr), canonical_text(method.dense_lr));
        for (const MethodOption& option : method.options)
            text += fmt::format("#   {:<28} # {} ({})\n", option.key + " = " + option.default_value,
                                note_text(option.unit, option.help), allowed_text(rule_of(option)));
    }
    return text;
}

std::vector<ConfigChange> compare_configs(const Config& stored, const Config& requested,
                                          const std::vector<MethodOptions>& methods) {
    const std::vector<Entry> before = entries_of(stored, methods), after = entries_of(requested, methods);
    const auto find = [](const std::vector<Entry>& entries, const std::string& name) {
        return std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.name == name; });
    };
    std::vector<ConfigChange> changes;
    const auto add_new = [&] {  // adds keys that only the requested method has, in their place
        for (const Entry& entry : after)
            if (split_name(entry.name).section == "method" && find(before, entry.name) == before.end())
                changes.push_back({entry.name, "", entry.text, false});
    };
    for (std::size_t i = 0; i < before.size(); ++i) {
        const Entry& entry = before[i];
        const auto other = find(after, entry.name);
        const std::string text = other == after.end() ? "" : other->text;
        if (text != entry.text || other == after.end())
            changes.push_back({entry.name, entry.text, text, entry.may_change_on_resume});
        const bool section_ends = i + 1 < before.size() && split_name(before[i + 1].name).section != "method";
        if (split_name(entry.name).section == "method" && section_ends) add_new();
    }
    return changes;
}

Config parse_stored_config(const std::string& text, const std::string& name,
                           const std::vector<std::string>& arguments,
                           const std::vector<MethodOptions>& methods) {
    ParsedConfig parsed = parse_config(text, name, arguments, methods);
    for (const Key& key : built_in_keys())
        if (!key.absent_means.empty() && !contains(parsed.given_keys, key.name))
            key.assign(parsed.config, key.absent_means);
    return std::move(parsed.config);
}

void take_stored_values(Config& requested, const std::vector<std::string>& given, const Config& stored,
                        const std::vector<MethodOptions>& methods) {
    for (const Key& key : built_in_keys()) {
        const bool unset = key.rule.accepts_auto ? key.text(requested) == "auto"
                                                 : !key.absent_means.empty() && !contains(given, key.name);
        if (unset) key.assign(requested, key.text(stored));
    }
    const MethodOptions* method = find_method(methods, requested.method.name);
    if (method == nullptr || stored.method.name != method->name) return;
    for (const MethodOption& option : method->options) {
        std::string& text = requested.method.options.at(option.key);
        const auto known = stored.method.options.find(option.key);
        if (rule_of(option).accepts_auto && text == "auto" && known != stored.method.options.end())
            text = known->second;
    }
}

std::string value_of(const Config& config, const std::string& key,
                     const std::vector<MethodOptions>& methods) {
    std::vector<std::string> names;
    for (const Entry& entry : entries_of(config, methods)) {
        if (entry.name == key) return entry.text;
        names.push_back(entry.name);
    }
    if (contains(known_keys(methods), key))
        fail_unused({key, "", "the command line"}, config.method.name, methods);
    fail("there is no key '{}' (a key is written section.key); did you mean {}?", key, nearest(key, names));
}

std::int64_t option_integer(const MethodConfig& method, const std::string& key) {
    return option_number<std::int64_t>(method, key);
}

double option_real(const MethodConfig& method, const std::string& key) {
    return option_number<double>(method, key);
}

bool option_boolean(const MethodConfig& method, const std::string& key) {
    const std::string& text = option_value(method, key);
    internal_check(text == "true" || text == "false", "method.{} = '{}' is read as true or false", key, text);
    return text == "true";
}

const std::string& option_text(const MethodConfig& method, const std::string& key) {
    return option_value(method, key);
}

}  // namespace switchyard
