// TextInput: one input of tokenize, and whether it is text or JSON lines. The content decides; the name
// counts only if it ends in .jsonl or .ndjson. Private to io/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/files/files.hpp"
#include "io/tokens/line_reader.hpp"

namespace switchyard {

enum class TextFormat { automatic, text, json_lines };

/// The user's settings for all inputs.
struct TextRule {
    TextFormat format = TextFormat::automatic;
    std::string text_key = "text";  // of JSON lines; a path with dots
    bool skip_bad_lines = false;    // of JSON lines: counts them instead of stopping
    bool names_key = false;         // true if the user gave the key
    /// True if these settings make sense for JSON lines only.
    bool expects_json_lines() const { return skip_bad_lines || names_key; }
};

struct TextInput {
    std::string name;        // for messages
    std::string path;        // "-": standard input
    std::uint64_t size = 0;  // 0: not known
    bool seekable = false;
    TextFormat format = TextFormat::automatic;  // decided at the start for inputs that can be read twice
};

/// The format called "auto", "text" or "jsonl". Throws UserError.
TextFormat format_from_name(const std::string&);

/// Checks that every input can be read, and decides the format of those that are files. Throws UserError for
/// a missing input, a folder, and files that are not text.
std::vector<TextInput> check_inputs(const std::vector<std::string>& names, const TextRule&);
FileDescriptor open_input(const TextInput&);

/// Throws UserError about a line of JSON lines.
[[noreturn]] void refuse_bad_line(const std::string& place, const std::string& problem);

/// Decides between text and JSON lines by the next bytes of `reader`: JSON lines if at least half of the
/// lines in the first stretch that are not blank are JSON objects (one of them, if JSON lines are expected).
/// Throws UserError if it is neither.
TextFormat decide_format(LineReader& reader, const std::string& name, const TextRule&);

}  // namespace switchyard
