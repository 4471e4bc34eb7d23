// Numbers are parsed by from_chars, which does not depend on the locale; the whole text must be a number.
#include "config/value_rule.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "core/error.hpp"

namespace switchyard {
namespace {

using Type = ValueRule::Type;

template <class T>
bool read_all(const std::string& text, T& value) {
    const char* begin = text.data();
    const char* end = begin + text.size();
    if (text.size() > 1 && text[0] == '+' && text[1] != '-') ++begin;
    const auto [stop, error] = std::from_chars(begin, end, value);
    return error == std::errc{} && stop == end && begin != end;
}

/// [[D-]H:]M:S in seconds.
bool read_duration(const std::string& text, double& seconds) {
    std::string clock = text;
    std::int64_t days = 0;
    const std::size_t dash = text.find('-');
    if (dash != std::string::npos && dash > 0) {
        if (!read_number(text.substr(0, dash), days) || days < 0) return false;
        clock = text.substr(dash + 1);
    }
    std::vector<double> fields;
    for (std::size_t begin = 0; begin <= clock.size();) {
        const std::size_t colon = std::min(clock.find(':', begin), clock.size());
        double field = 0;
        if (!read_number(clock.substr(begin, colon - begin), field) || field < 0) return false;
        if (!fields.empty() && field >= 60) return false;
        fields.push_back(field);
        begin = colon + 1;
    }
    if (fields.size() < 2 || fields.size() > 3 || (dash != std::string::npos && fields.size() != 3))
        return false;
    seconds =
        std::accumulate(fields.begin(), fields.end(), 0.0, [](double s, double f) { return 60 * s + f; });
    seconds += 86400.0 * static_cast<double>(days);
    return true;
}

const char* kind_text(const ValueRule& rule) {
    if (rule.is_duration) return "a time";
    switch (rule.type) {
        case Type::integer:
            return "a whole number";
        case Type::real:
            return "a number";
        case Type::boolean:
            return "true or false";
        case Type::text:
            return "text";
    }
    return "";
}

/// The number of insertions, deletions and replacements between two texts (Levenshtein distance).
std::size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i + 1;
        for (std::size_t j = 0; j < b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
        }
    }
    return row[b.size()];
}

}  // namespace

bool read_number(const std::string& text, double& value) {
    return read_all(text, value);
}
bool read_number(const std::string& text, std::int64_t& value) {
    return read_all(text, value);
}
bool read_number(const std::string& text, std::uint64_t& value) {
    return read_all(text, value);
}

ValueRule rule_of(const MethodOption& option) {
    ValueRule rule;
    rule.type = option.type;
    rule.minimum = option.minimum;
    rule.maximum = option.maximum;
    rule.choices = option.choices;
    const bool number = option.type == Type::integer || option.type == Type::real;
    rule.accepts_auto = number && option.default_value == "auto";
    return rule;
}

std::string canonical_text(double value) {
    return fmt::format("{}", value == 0 ? 0.0 : value);
}

std::string allowed_text(const ValueRule& rule) {
    if (!rule.choices.empty()) return "one of " + fmt::format("{}", fmt::join(rule.choices, ", "));
    std::string text = kind_text(rule);
    if (rule.is_duration) text += ": seconds, M:S, H:M:S or D-H:M:S";
    if (rule.minimum > -1e300)
        text +=
            fmt::format(", {} {}", rule.above_minimum ? "above" : "at least", canonical_text(rule.minimum));
    if (rule.maximum < 1e300)
        text +=
            fmt::format("{} at most {}", rule.minimum > -1e300 ? " and" : ",", canonical_text(rule.maximum));
    if (rule.accepts_auto) text += ", or auto";
    return text;
}

std::string checked_value(const ValueRule& rule, const std::string& key, const std::string& text,
                          const std::string& origin) {
    if (rule.accepts_auto && text == "auto") return text;
    const auto wrong_type = [&](bool ok) {
        require(ok, "{} = '{}' in {} is not {} (the key takes {}); correct the value", key, text, origin,
                kind_text(rule), allowed_text(rule));
    };
    const auto in_range = [&](double number) {
        const bool above = rule.above_minimum ? number > rule.minimum : number >= rule.minimum;
        require(above && number <= rule.maximum,
                "{} = {} in {} is out of range (the key takes {}); choose a value in the range", key, text,
                origin, allowed_text(rule));
    };
    switch (rule.type) {
        case Type::boolean:
            wrong_type(text == "true" || text == "false");
            return text;
        case Type::integer: {
            std::uint64_t natural = 0;  // up to 2^64 - 1, for seeds
            if (read_number(text, natural)) {
                in_range(static_cast<double>(natural));
                return fmt::format("{}", natural);
            }
            std::int64_t number = 0;
            wrong_type(read_number(text, number));
            in_range(static_cast<double>(number));
            return fmt::format("{}", number);
        }
        case Type::real: {
            double number = 0;
            const bool read = read_number(text, number) || (rule.is_duration && read_duration(text, number));
            wrong_type(read && std::isfinite(number));
            in_range(number);
            return canonical_text(number);
        }
        case Type::text:
            break;
    }
    const bool known = rule.choices.empty() ||
                       std::find(rule.choices.begin(), rule.choices.end(), text) != rule.choices.end();
    require(known, "{} = '{}' in {} is not a known value (the key takes {}); did you mean '{}'?", key, text,
            origin, allowed_text(rule), nearest(text, rule.choices));
    return text;
}

std::string nearest(const std::string& given, const std::vector<std::string>& candidates) {
    const std::string text = given.substr(0, 200);
    std::string best;
    std::size_t least = std::numeric_limits<std::size_t>::max();
    for (const std::string& candidate : candidates) {
        std::size_t distance = edit_distance(text, candidate);
        const std::size_t dot = candidate.find('.'), dot_in_text = text.find('.');
        if (dot != std::string::npos) {
            // A right key in a wrong section, or without one, counts as one wrong letter.
            const std::string short_text =
                dot_in_text == std::string::npos ? text : text.substr(dot_in_text + 1);
            distance = std::min(distance, edit_distance(short_text, candidate.substr(dot + 1)) + 1);
        }
        if (distance < least) {
            least = distance;
            best = candidate;
        }
    }
    return best;
}

}  // namespace switchyard
