// Files are examined when the command starts, so that a bad file among thousands is found before hours of
// work; streams are examined when their turn comes.
#include "io/tokens/text_input.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "core/error.hpp"
#include "io/tokens/input_kind.hpp"
#include "io/tokens/json_line.hpp"

namespace switchyard {
namespace {

constexpr std::size_t first_stretch = 256 << 10, longest_stretch = 64 << 20;
constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

bool is_json_lines_name(std::string_view name) {
    return name.ends_with(".jsonl") || name.ends_with(".ndjson");
}

/// The beginning of an input up to its last line end. A first line that is longer is read whole if it may be
/// an object.
std::string_view first_lines(LineReader& reader) {
    for (std::size_t bytes = first_stretch;; bytes *= 4) {
        std::string_view text = reader.peek(bytes);
        if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
        if (reader.ended()) return text;
        const std::size_t end = text.rfind('\n');
        if (end != std::string_view::npos) return text.substr(0, end);
        const std::size_t first = text.find_first_not_of(" \t");
        if (first == std::string_view::npos || text[first] != '{' || bytes >= longest_stretch) return text;
    }
}

struct LineCount {
    std::size_t objects = 0, others = 0;
};

LineCount count_lines(std::string_view text) {
    LineCount count;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        if (!is_blank(line)) ++(is_json_object(line) ? count.objects : count.others);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return count;
}

/// True for one JSON value over many lines, an array of objects.
bool is_array_of_objects(std::string_view text) {
    const char* const spaces = " \t\r\n";
    const std::size_t open = text.find_first_not_of(spaces);
    if (open == std::string_view::npos || text[open] != '[') return false;
    const std::size_t first = text.find_first_not_of(spaces, open + 1);
    if (first == std::string_view::npos || text[first] != '{') return false;
    const std::size_t key = text.find_first_not_of(spaces, first + 1);
    return key != std::string_view::npos && (text[key] == '"' || text[key] == '}');
}

/// True for pretty-printed objects with text under the key: a document, or the first of several. JSON without
/// that key may be text to train on, such as a configuration among other code.
bool begins_with_object_over_lines(std::string_view text, const std::string& key) {
    const std::size_t end = text.find("\n}");
    if (!text.starts_with('{') || end == std::string_view::npos) return false;
    try {
        text_of_json_line(text.substr(0, end + 2), key);
        return true;
    } catch (const UserError&) {
        return false;
    }
}

}  // namespace

TextFormat format_from_name(const std::string& name) {
    if (name == "auto") return TextFormat::automatic;
    if (name == "text") return TextFormat::text;
    require(name == "jsonl",
            "unknown format `{}` (it says how all inputs are read); use auto (each by its content), text or "
            "jsonl",
            name);
    return TextFormat::json_lines;
}

FileDescriptor open_input(const TextInput& input) {
    FileDescriptor fd(input.path == "-" ? ::dup(STDIN_FILENO)
                                        : ::open(input.path.c_str(), O_RDONLY | O_CLOEXEC));
    require(fd >= 0, "cannot open input `{}`: {} (its text was to be tokenized); check the path", input.name,
            system_reason);
    return fd;
}

TextFormat decide_format(LineReader& reader, const std::string& name, const TextRule& rule) {
    refuse_known_kinds(name, reader.peek(kind_bytes).substr(0, kind_bytes));
    if (rule.format != TextFormat::automatic) return rule.format;
    refuse_unknown_binary(name, reader.peek(kind_bytes).substr(0, kind_bytes));
    if (is_json_lines_name(name)) return TextFormat::json_lines;
    const std::string_view text = first_lines(reader);
    const LineCount count = count_lines(text);
    if (count.objects > 0 && (rule.expects_json_lines() || count.objects >= count.others))
        return TextFormat::json_lines;
    require(!is_array_of_objects(text),
            "`{}` is a JSON array (its documents would be read as raw JSON); write an object a line: jq -c "
            "'.[]', or give --format=text",
            name);
    require(!begins_with_object_over_lines(text, rule.text_key),
            "`{}` has JSON objects over several lines (their text would be read as raw JSON); write an "
            "object a line: jq -c ., or give --format=text",
            name);
    return TextFormat::text;
}

std::vector<TextInput> check_inputs(const std::vector<std::string>& names, const TextRule& rule) {
    require(
        !names.empty(),
        "no input given (there is nothing to tokenize); name files of text or JSON lines, or - for stdin");
    require(std::count(names.begin(), names.end(), "-") <= 1,
            "standard input `-` is given twice (it can be read once); name it once");
    std::vector<TextInput> inputs;
    for (const std::string& name : names) {
        TextInput input{name, name};
        struct stat status {};
        if (name == "-") {
            input.name = "standard input";
            inputs.push_back(input);
            continue;
        }
        require(::stat(name.c_str(), &status) == 0,
                "cannot read input `{}`: {} (its text was to be tokenized); check the path", name,
                system_reason);
        require(!S_ISDIR(status.st_mode), "input `{}` is a folder (inputs are files); name its files: {}/*",
                name, name);
        if (S_ISREG(status.st_mode)) {
            input.size = static_cast<std::uint64_t>(status.st_size);
            input.seekable = true;
            LineReader reader(open_input(input), name);
            input.format = decide_format(reader, name, rule);
        }
        inputs.push_back(input);
    }
    return inputs;
}

}  // namespace switchyard
