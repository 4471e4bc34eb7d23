// Files are examined when the command starts, so that a bad file among thousands is found before hours of
// work; streams are examined when their turn comes.
#include "io/tokens/text_input.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/output.hpp"
#include "io/tokens/input_kind.hpp"
#include "io/tokens/json_shape.hpp"

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
        if (first == std::string_view::npos || (text[first] != '{' && text[first] != '[') ||
            bytes >= longest_stretch)
            return text;
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

void refuse_bad_line(const std::string& place, const std::string& problem) {
    fail(
        "{}: {} (the file holds JSON lines, each one document); mend the line, name the text's key with "
        "--text_key=KEY, leave such lines out with --skip_bad_lines, or give --format=text for plain text",
        place, problem);
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
    const JsonShape shape = shape_of_json(text, reader.ended(), rule.text_key);
    if (shape.objects > 0 && (rule.expects_json_lines() || shape.objects >= shape.num_lines - shape.objects))
        return TextFormat::json_lines;
    if (shape.is_one_long_object) return TextFormat::json_lines;
    require(shape.certainty != JsonShape::Certainty::certain,
            "`{}` has {} (its documents would be read as raw JSON); {}, or give --format=text", name,
            shape.what, shape.advice);
    if (shape.certainty == JsonShape::Certainty::likely)
        print_error(
            "tokenize: warning: `{}` has {} (it is read as plain text, with its quotes and names); if it "
            "holds documents, {}",
            name, shape.what, shape.advice);
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
