// An argument with a dot in its name is a setting; without a dot it is an option of the command.
#include "commands/arguments.hpp"

#include <algorithm>

#include "config/value_rule.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

[[noreturn]] void fail_unknown(const std::string& command, const std::string& name,
                               const std::vector<CommandOption>& options) {
    std::vector<std::string> names;
    for (const CommandOption& option : options) names.push_back(option.name);
    names.push_back("help");
    fail(
        "unknown option --{} of `switchyard {}` (it would have no effect); did you mean --{}? See "
        "`switchyard {} --help`",
        name, command, nearest(name, names), command);
}

}  // namespace

std::string Arguments::text(const std::string& option, const std::string& otherwise) const {
    const auto found = options.find(option);
    return found == options.end() ? otherwise : found->second;
}

std::int64_t Arguments::integer(const std::string& option, std::int64_t otherwise, std::int64_t minimum,
                                std::int64_t maximum) const {
    if (!has(option)) return otherwise;
    std::int64_t value = 0;
    const std::string& given = options.at(option);
    require(read_number(given, value) && value >= minimum && value <= maximum,
            "--{}={} is not a whole number from {} to {} (what the option takes); correct it", option, given,
            minimum, maximum);
    return value;
}

double Arguments::real(const std::string& option, double otherwise, double minimum, double maximum) const {
    if (!has(option)) return otherwise;
    double value = 0;
    const std::string& given = options.at(option);
    require(read_number(given, value) && value >= minimum && value <= maximum,
            "--{}={} is not a number from {} to {} (what the option takes); correct it", option, given,
            minimum, maximum);
    return value;
}

Arguments parse_arguments(const std::string& command, const std::vector<std::string>& words,
                          const std::vector<CommandOption>& options) {
    Arguments result;
    for (const std::string& word : words) {
        require(word.size() < 2 || word[0] != '-' || word[1] == '-',
                "{} is not an option (options begin with two dashes); write --option or --section.key=value, "
                "./{} for a file of that name; see `switchyard {} --help`",
                word, word, command);
        if (word.substr(0, 2) != "--") {
            result.files.push_back(word);
            continue;
        }
        const std::size_t equals = word.find('=');
        const std::string name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
        if (name.find('.') != std::string::npos) {
            const bool stands_apart = &word != &words.back() && !(&word)[1].starts_with("--");
            require(equals != std::string::npos,
                    "--{} has no value (a setting and its value are one word); write --{}={}", name, name,
                    stands_apart ? (&word)[1] : "VALUE");
            result.settings.push_back(word);
            continue;
        }
        const auto option = std::find_if(options.begin(), options.end(),
                                         [&](const CommandOption& o) { return o.name == name; });
        if (option == options.end()) fail_unknown(command, name, options);
        const bool has_value = equals != std::string::npos;
        require(option->value.empty() || has_value, "--{} has no value (it needs one); write --{}={}", name,
                name, option->value);
        require(!option->value.empty() || !has_value,
                "--{} takes no value (it is a switch); write --{} alone", name, name);
        result.options[name] = has_value ? word.substr(equals + 1) : "";
    }
    return result;
}

}  // namespace switchyard
