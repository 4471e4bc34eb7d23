// The text under a key in one line of a JSON-lines file. Only that text must be valid JSON. Elsewhere the
// line may hold what a tolerant reader accepts: NaN, Infinity, 1e999, half surrogate pairs, repeated keys,
// any depth. Private to io/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

struct JsonText {
    std::string text;                  // has bytes that are not UTF-8 if the line has them
    std::int64_t lone_surrogates = 0;  // number of lone surrogates, which became U+FFFD
};

/// The string under `key`, which is a name or a path of names joined by dots ("meta.text"). Of a repeated key
/// the last one counts. Throws UserError (without file and line) if the line is not an object or has no
/// string there.
JsonText text_of_json_line(std::string_view line, std::string_view key);

/// True if the line is one object, with or without spaces around it.
bool is_json_object(std::string_view line);

/// The JSON value that a text begins with.
struct JsonBeginning {
    enum class End { not_json, cut, whole };  // cut: it is JSON as far as the text goes
    End end = End::not_json;
    char first = 0;         // { [ or "
    std::size_t bytes = 0;  // from the beginning of the text to the end of the value
    bool has_key = false;   // at any depth, a string under the key
    bool has_text = false;  // it holds strings or objects
    bool has_escapes = false;
};

/// Looks for an object, an array or a string at the beginning of `text`, after spaces.
JsonBeginning json_beginning(std::string_view text, std::string_view key);

}  // namespace switchyard
