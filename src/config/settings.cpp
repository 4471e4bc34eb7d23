// Boost.Program_options parses files and arguments. Because it cuts values at '#', trims them and refuses
// empty ones, values pass through it as hexadecimal digits, with the line number in front.
#include "config/settings.hpp"

#include <algorithm>
#include <boost/program_options.hpp>
#include <sstream>

#include "core/error.hpp"
#include "core/utf8.hpp"

namespace switchyard {
namespace {

namespace po = boost::program_options;

const char* const white = " \t\r\n\v\f";
constexpr std::size_t longest_name = 200, longest_line = 64 << 10;

bool is_ascii_letter_or_digit(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::string trimmed(const std::string& text) {
    const std::size_t begin = text.find_first_not_of(white);
    if (begin == std::string::npos) return "";
    return text.substr(begin, text.find_last_not_of(white) - begin + 1);
}

std::string wrapped(const std::string& value, std::size_t line) {
    std::string text = fmt::format("{}:", line);
    for (unsigned char c : value) text += fmt::format("{:02x}", c);
    return text;
}

struct Unwrapped {
    std::size_t line = 0;
    std::string value;
};
Unwrapped unwrapped(const std::string& text) {
    const std::size_t colon = text.find(':');
    Unwrapped result{std::stoul(text.substr(0, colon)), ""};
    for (std::size_t i = colon + 1; i < text.size(); i += 2)
        result.value += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
    return result;
}

std::string without_comment(const std::string& text) {
    for (std::size_t i = 0; i < text.size(); ++i)
        if (text[i] == '#' && (i == 0 || std::string(white).find(text[i - 1]) != std::string::npos))
            return text.substr(0, i);
    return text;
}

/// Removes the quotes; `text` must begin with a double quote.
std::string unquoted(const std::string& text, const std::string& origin) {
    std::string value;
    for (std::size_t i = 1; i < text.size(); ++i) {
        if (text[i] == '"') {
            const std::string rest = trimmed(without_comment(text.substr(i + 1)));
            require(rest.empty(),
                    "{} has '{}' after a closing quote (a quoted value ends there); write \\\" for a quote "
                    "inside the value",
                    origin, rest);
            return value;
        }
        if (text[i] != '\\') {
            value += text[i];
            continue;
        }
        const char code = ++i < text.size() ? text[i] : '\0';
        switch (code) {
            case 'n':
                value += '\n';
                break;
            case 'r':
                value += '\r';
                break;
            case 't':
                value += '\t';
                break;
            case '"':
            case '\\':
                value += code;
                break;
            default:
                fail(
                    "{} has a backslash that begins no known sequence (in quotes \\\" \\\\ \\n \\r \\t are "
                    "known); write \\\\ for a backslash",
                    origin);
        }
    }
    fail(
        "{} has a value without its closing quote (the value would run on into the next line); add a double "
        "quote",
        origin);
}

po::options_description description(const std::vector<std::string>& known_keys) {
    po::options_description keys;
    for (const std::string& key : known_keys) keys.add_options()(key.c_str(), po::value<std::string>());
    return keys;
}

void check_name(const std::string& name, const char* what, const std::string& origin) {
    const auto known = [](char c) { return is_ascii_letter_or_digit(c) || c == '_' || c == '.' || c == '-'; };
    require(name.size() <= longest_name,
            "{} has the {} '{}...' of {} bytes (no key is longer than {}); correct it", origin, what,
            name.substr(0, 40), name.size(), longest_name);
    require(
        !name.empty() && std::all_of(name.begin(), name.end(), known),
        "{} has the {} '{}' (names consist of letters, digits and _); correct it, or write # in front of a "
        "comment",
        origin, what, name);
}

void check_characters(const std::string& text, const std::string& origin) {
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t bytes = utf8_at(text, i).bytes;
        require(
            bytes > 0 && text[i] != '\0',
            "{} has a byte that is not text in UTF-8, after {} bytes (configurations are UTF-8); save it as "
            "UTF-8, or write it anew",
            origin, i);
        i += bytes;
    }
}

/// Removes the byte-order mark that some editors write, and refuses UTF-16.
std::string without_mark(const std::string& text, const std::string& file_name) {
    require(!text.starts_with("\xFF\xFE") && !text.starts_with("\xFE\xFF"),
            "{} is UTF-16 text (configurations are UTF-8); save it as UTF-8", file_name);
    check_characters(text, file_name);
    return text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text;
}

/// The text that Boost parses: one line for each line of the file, with wrapped values.
std::string wrapped_file(const std::string& text, const std::string& file_name) {
    std::istringstream input(without_mark(text, file_name));
    std::string result, line;
    for (std::size_t number = 1; std::getline(input, line); ++number) {
        const std::string origin = fmt::format("{}:{}", file_name, number);
        require(line.size() <= longest_line,
                "{} has a line of {} bytes (a setting has at most {}); check that it is a configuration",
                origin, line.size(), longest_line);
        const std::string code = trimmed(without_comment(line));
        const std::size_t equals = line.find('=');
        if (code.empty()) continue;
        if (code.front() == '[' && code.back() == ']') {
            const std::string name = trimmed(code.substr(1, code.size() - 2));
            check_name(name, "section", origin);
            result += "[" + name + "]\n";
            continue;
        }
        const std::string key = trimmed(line.substr(0, equals));
        require(code.find('=') != std::string::npos && !key.empty(),
                "{} has '{}' (a line is [section], key = value or a # comment); write it as one of these",
                origin, code);
        check_name(key, "key", origin);
        std::string value = trimmed(line.substr(equals + 1));
        value = value.starts_with('"') ? unquoted(value, origin) : trimmed(without_comment(" " + value));
        result += key + " = " + wrapped(value, number) + "\n";
    }
    return result;
}

}  // namespace

std::vector<Setting> settings_of_file(const std::string& text, const std::string& file_name,
                                      const std::vector<std::string>& known_keys) {
    std::istringstream input(wrapped_file(text, file_name));
    std::vector<Setting> settings;
    for (const auto& option : po::parse_config_file(input, description(known_keys), true).options) {
        const Unwrapped value = unwrapped(option.value.at(0));
        settings.push_back({option.string_key, value.value, fmt::format("{}:{}", file_name, value.line)});
    }
    return settings;
}

std::vector<Setting> settings_of_arguments(const std::vector<std::string>& arguments,
                                           const std::vector<std::string>& known_keys) {
    const auto split = [](const std::string& argument) {
        const std::size_t equals = argument.find('=');
        require(argument.starts_with("--") && equals != std::string::npos && equals > 2,
                "'{}' on the command line is not a setting (settings are written --section.key=value); write "
                "it so",
                argument);
        require(equals - 2 <= longest_name,
                "'{}...' on the command line is {} bytes long (no key is longer than {}); correct it",
                argument.substr(0, 40), equals - 2, longest_name);
        check_characters(argument, argument.substr(2, equals - 2) + " on the command line");
        return std::pair(argument.substr(2, equals - 2), wrapped(argument.substr(equals + 1), 0));
    };
    const auto keys = description(known_keys);
    const auto parsed =
        po::command_line_parser(arguments)
            .options(keys)
            .style(po::command_line_style::allow_long | po::command_line_style::long_allow_adjacent)
            .extra_parser(split)
            .allow_unregistered()
            .run();
    std::vector<Setting> settings;
    for (const auto& option : parsed.options)
        settings.push_back({option.string_key, unwrapped(option.value.at(0)).value, "the command line"});
    return settings;
}

std::string quoted_where_needed(const std::string& value) {
    const bool bare = value == trimmed(value) && !value.starts_with('"') &&
                      value.find_first_of("#\n\r\t") == std::string::npos;
    if (bare) return value;
    std::string text = "\"";
    for (char c : value) {
        switch (c) {
            case '\n':
                text += "\\n";
                break;
            case '\r':
                text += "\\r";
                break;
            case '\t':
                text += "\\t";
                break;
            case '"':
            case '\\':
                text += '\\';
                [[fallthrough]];
            default:
                text += c;
        }
    }
    return text + '"';
}

}  // namespace switchyard
