// TextInput: one input of tokenize, and whether it is text or JSON lines. Its content decides; its name
// counts only where it says .jsonl or .ndjson. Private to io/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/files/files.hpp"
#include "io/tokens/line_reader.hpp"

namespace switchyard {

enum class TextFormat { automatic, text, json_lines };

/// What the user says of all inputs.
struct TextRule {
    TextFormat format = TextFormat::automatic;
    std::string text_key = "text";  // of JSON lines; a path with dots
    bool skip_bad_lines = false;    // of JSON lines: count them instead of giving up
    bool names_key = false;         // the user named the key
    /// Settings that mean JSON lines.
    bool expects_json_lines() const { return skip_bad_lines || names_key; }
};

struct TextInput {
    std::string name;        // for messages
    std::string path;        // "-": standard input
    std::uint64_t size = 0;  // 0 when it cannot be known
    bool seekable = false;
    TextFormat format = TextFormat::automatic;  // decided at once where the input can be read twice
};

/// "auto", "text" or "jsonl". Throws UserError.
TextFormat format_from_name(const std::string&);

/// Checks that every input can be read, and decides the format of those that are files. Throws UserError:
/// missing, a folder, not text.
std::vector<TextInput> check_inputs(const std::vector<std::string>& names, const TextRule&);
FileDescriptor open_input(const TextInput&);

/// Text or JSON lines, by what comes next in `reader`: at least half of the lines of the first stretch that
/// are not blank are JSON objects (where JSON lines are expected: one of them is). Throws UserError where it
/// is neither.
TextFormat decide_format(LineReader& reader, const std::string& name, const TextRule&);

}  // namespace switchyard
