// Makes text of unknown origin safe for a terminal: nothing in it moves the cursor, changes colours or hides
// neighbouring text.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

/// Returns `text` with control characters (C0, DEL, C1), bytes that are not UTF-8, and marks that change the
/// direction of writing escaped as \xNN or \u{NNNN}. Line ends and tabs stay.
std::string printable(std::string_view text);

}  // namespace switchyard
