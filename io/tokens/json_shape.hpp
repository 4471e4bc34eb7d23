// JSON that is not one object a line, which would be tokenized with its quotes, names and brackets. Text that
// only resembles it stays text: a footnote [1], a list of sections, a line of code. Private to io/.
#pragma once

#include <cstddef>
#include <string_view>

namespace switchyard {

struct JsonShape {
    enum class Certainty { none, likely, certain };  // that it is JSON in another form
    std::size_t num_lines = 0, objects = 0;          // lines that are not blank; those that are one object
    bool is_one_long_object = false;                 // no end of line so far
    Certainty certainty = Certainty::none;
    const char *what = "", *advice = "";
};

/// Judges the beginning of an input, up to a line end unless it is one long line. `ended`: it is all of it.
JsonShape shape_of_json(std::string_view text, bool ended, std::string_view key);

}  // namespace switchyard
