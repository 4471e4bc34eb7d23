// What a key accepts. Values are checked as text and kept in one canonical form (shortest that reads back
// exactly), so that equal values have equal texts.
#pragma once

#include <string>
#include <vector>

#include "config/option_table.hpp"

namespace switchyard {

struct ValueRule {
    using Type = MethodOption::Type;
    Type type = Type::text;
    double minimum = -1e300, maximum = 1e300;  // inclusive; numbers only
    bool above_minimum = false;                // the minimum itself is excluded
    bool is_duration = false;                  // seconds, also written M:S, H:M:S or D-H:M:S
    bool accepts_auto = false;                 // "auto" stands for a number that the method works out
    std::vector<std::string> choices;          // text only; empty: any
};

ValueRule rule_of(const MethodOption&);

/// "a whole number, at least 1"
std::string allowed_text(const ValueRule&);

/// The canonical text of `text`. Throws UserError naming key, value, `origin` (file and line, or command
/// line) and what is allowed.
std::string checked_value(const ValueRule&, const std::string& key, const std::string& text,
                          const std::string& origin);

std::string canonical_text(double);

/// The whole of `text` as a number; false if it is none.
bool read_number(const std::string& text, double& value);
bool read_number(const std::string& text, std::int64_t& value);
bool read_number(const std::string& text, std::uint64_t& value);

/// The candidate with the smallest edit distance to `text`; a candidate's part after the dot counts as well.
std::string nearest(const std::string& text, const std::vector<std::string>& candidates);

}  // namespace switchyard
