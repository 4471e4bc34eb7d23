// One line of a JSON-lines file: the text under a key. Only that text must be what JSON says; of all else the
// line may hold what a tolerant reader skips: NaN, Infinity, 1e999, half surrogate pairs, keys given twice,
// any depth. Private to io/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

struct JsonText {
    std::string text;                  // may hold bytes that are not UTF-8, if the line did
    std::int64_t lone_surrogates = 0;  // became U+FFFD
};

/// The string under `key`, a name or a path of names with dots between them ("meta.text"). Given twice, the
/// last one counts. Throws UserError without file and line: not an object, nothing or no string there.
JsonText text_of_json_line(std::string_view line, std::string_view key);

/// The whole line is one object, spaces around it aside.
bool is_json_object(std::string_view line);

}  // namespace switchyard
