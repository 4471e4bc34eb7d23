// Text of unknown origin on its way to a terminal: nothing in it moves the cursor, changes colours or hides
// what stands beside it.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

/// `text` with control characters (of C0, DEL, of C1), bytes that are not UTF-8 and marks that turn the
/// direction of writing as \xNN or \u{NNNN}. Line ends and tabs stay.
std::string printable(std::string_view text);

}  // namespace switchyard
