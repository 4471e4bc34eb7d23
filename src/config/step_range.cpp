#include "config/step_range.hpp"

#include <charconv>

#include "core/error.hpp"

namespace switchyard {

StepRange step_range(const std::string& key, const std::string& text) {
    StepRange range;
    if (text.empty()) return range;
    const char* const end = text.data() + text.size();
    const auto [colon, first_error] = std::from_chars(text.data(), end, range.first);
    const bool has_colon = first_error == std::errc() && colon != end && *colon == ':';
    const auto [rest, last_error] =
        has_colon ? std::from_chars(colon + 1, end, range.last) : std::from_chars_result{end, std::errc()};
    require(has_colon && last_error == std::errc() && rest == end && range.first >= 1 && !range.empty(),
            "{} = `{}` is not a range of steps (the first and the last one are needed, in order); write them "
            "like 10:12",
            key, text);
    return range;
}

}  // namespace switchyard
