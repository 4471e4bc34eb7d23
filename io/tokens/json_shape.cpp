// Lines are judged one by one, and the first value where it takes several lines.
#include "io/tokens/json_shape.hpp"

#include <algorithm>
#include <string>

#include "io/tokens/json_line.hpp"
#include "io/tokens/line_reader.hpp"

namespace switchyard {
namespace {

constexpr char record_separator = '\x1E';  // before every value in RFC 7464
constexpr const char *array_kind = "a JSON array", *array_advice = "write an object a line: jq -c '.[]'",
                     *over_lines = "JSON objects over several lines",
                     *object_advice = "write an object a line: jq -c .";

using Certainty = JsonShape::Certainty;
using End = JsonBeginning::End;

/// How a line is JSON that is not one object.
struct LineKind {
    Certainty certainty = Certainty::none;
    const char *what = "", *advice = "";
    bool is_string = false;
};

/// The text from its first character on, without a record separator.
std::string_view without_separator(std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    if (text.starts_with(record_separator)) text.remove_prefix(1);
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    return text;
}

/// {'text': ...}, or an array of such, as Python prints them.
bool is_python(std::string_view text) {
    const std::size_t first = text.find_first_not_of(" \t\r\n[");
    if (first == std::string_view::npos || text.substr(first, 2) != "{'") return false;
    const std::size_t end = text.find('\'', first + 2);
    const std::size_t colon =
        end == std::string_view::npos ? end : text.find_first_not_of(" \t\r\n", end + 1);
    return colon != std::string_view::npos && text[colon] == ':';
}

LineKind kind_of_line(std::string_view line, std::string_view key) {
    constexpr const char* python_advice = "write each with json.dumps, an object a line";
    const std::size_t last = line.find_last_not_of(" \t\r,]");
    if (last != std::string_view::npos && line[last] == '}' && is_python(line))
        return {Certainty::certain, "Python's dicts", python_advice};
    const std::string_view value = without_separator(line);
    const JsonBeginning begun = json_beginning(value, key);
    if (begun.end != End::whole || (begun.first == '[' && !begun.has_text)) return {};
    const std::string_view rest = value.substr(begun.bytes);
    const std::size_t next = std::min(rest.find_first_not_of(" \t\r,\x1E"), rest.size());
    const std::string_view between = rest.substr(0, next);
    const bool ends = next == rest.size(), begins_again = !ends && rest[next] == begun.first;
    if (begins_again && between.find_first_of("\r\x1E") != std::string_view::npos)
        return {Certainty::certain, "JSON whose lines do not end with a line feed", object_advice};
    if (begins_again && begun.first == '{')
        return {Certainty::certain, "several JSON objects on a line", object_advice};
    if (!ends) return {};
    if (line.find(record_separator) < line.find(begun.first) ||
        between.find(record_separator) != std::string_view::npos)
        return {Certainty::certain, "JSON with record separators", "take them out with tr -d '\\036'"};
    if (begun.first == '{')
        return {Certainty::certain, "JSON objects with commas between them", "take them out: sed 's/,$//'"};
    if (begun.first == '[')
        return {Certainty::certain, "JSON arrays", "write objects: jq -c '.[]' or jq -c '{text: .[0]}'"};
    return {begun.has_escapes ? Certainty::certain : Certainty::likely, "JSON strings",
            "write objects: jq -c '{text: .}'", true};
}

/// Half of the lines must be such; all of them if they are strings, which code and translations have too.
LineKind kind_of_lines(std::string_view text, std::string_view key, JsonShape& shape) {
    std::size_t foreign = 0, strings = 0;
    LineKind kind, strings_kind;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (is_blank(line)) continue;
        ++shape.num_lines;
        if (is_json_object(line)) {
            ++shape.objects;
            continue;
        }
        const LineKind found = kind_of_line(line, key);
        if (found.certainty == Certainty::none) continue;
        ++(found.is_string ? strings : foreign);
        LineKind& first = found.is_string ? strings_kind : kind;
        if (first.certainty < found.certainty) first = found;
    }
    if (foreign > 0 && 2 * (foreign + shape.objects) >= shape.num_lines) return kind;
    return strings > 0 && strings == shape.num_lines ? strings_kind : LineKind{};
}

/// An array of objects that may have an error further on.
bool is_array_of_objects(std::string_view text) {
    const char* const spaces = " \t\r\n";
    const std::size_t open = text.find_first_not_of(spaces);
    if (open == std::string_view::npos || text[open] != '[') return false;
    const std::size_t first = text.find_first_not_of(spaces, open + 1);
    if (first == std::string_view::npos || text[first] != '{') return false;
    const std::size_t key = text.find_first_not_of(spaces, first + 1);
    return key != std::string_view::npos && (text[key] == '"' || text[key] == '}');
}

/// The kind of a value that takes several lines. An object without the key may be text to train on, such as
/// a configuration among other code.
LineKind kind_over_lines(std::string_view text, bool ended, std::string_view key) {
    text = without_separator(text);
    if (is_array_of_objects(text)) return {Certainty::certain, array_kind, array_advice};
    if (is_python(text) && text.find("'" + std::string(key) + "'") != std::string_view::npos)
        return {Certainty::certain, "Python's dicts", "write each with json.dumps, an object a line"};
    const JsonBeginning begun = json_beginning(text, key);
    if (begun.end == End::not_json || begun.first == '"') return {};
    const bool one_line = text.substr(0, begun.bytes).find('\n') == std::string_view::npos;
    if (one_line && (begun.end == End::whole || ended)) return {};
    if (begun.first == '{' && begun.has_key) return {Certainty::certain, over_lines, object_advice};
    const std::size_t next = text.find_first_not_of(" \t\r\n,\x1E", begun.bytes);
    const bool prose_follows = next != std::string_view::npos && text[next] != '{' && text[next] != '[';
    if (prose_follows || !begun.has_text) return {};
    if (begun.first == '[') return {Certainty::certain, array_kind, array_advice};
    return {Certainty::likely, over_lines, object_advice};
}

}  // namespace

JsonShape shape_of_json(std::string_view text, bool ended, std::string_view key) {
    JsonShape shape;
    const LineKind lines = kind_of_lines(text, key, shape), first = kind_over_lines(text, ended, key);
    const LineKind& kind = first.certainty >= lines.certainty ? first : lines;
    shape.certainty = kind.certainty, shape.what = kind.what, shape.advice = kind.advice;
    if (!ended && text.find('\n') == std::string_view::npos) {
        const JsonBeginning begun = json_beginning(text, key);
        shape.is_one_long_object = begun.end == End::cut && begun.first == '{';
    }
    return shape;
}

}  // namespace switchyard
