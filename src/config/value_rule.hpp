// The values that a key accepts. Values are checked as text and kept in one canonical form (the shortest that
// reads back exactly), so that equal values have equal texts.
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
    bool accepts_auto = false;                 // "auto" stands for a number that the method chooses
    std::vector<std::string> choices;          // text only; empty: any
};

ValueRule rule_of(const MethodOption&);

/// "a whole number, at least 1"
std::string allowed_text(const ValueRule&);

/// The canonical form of `text`. Throws UserError naming the key, the value, its `origin` (file and line, or
/// command line) and what is allowed.
std::string checked_value(const ValueRule&, const std::string& key, const std::string& text,
                          const std::string& origin);

std::string canonical_text(double);

/// Parses the whole of `text` as a number; returns false if it is not one.
bool read_number(const std::string& text, double& value);
bool read_number(const std::string& text, std::int64_t& value);
bool read_number(const std::string& text, std::uint64_t& value);

/// The candidate with the smallest edit distance to `text`; the part of a candidate after the dot is compared
/// as well.
std::string nearest(const std::string& text, const std::vector<std::string>& candidates);

}  // namespace switchyard
