// Three digits are enough for readers to compare; exact values are in the JSON output.
#include "core/units.hpp"

#include <fmt/format.h>

#include <cmath>

namespace switchyard {
namespace {

/// `value` with three digits, in the largest unit that leaves at least 1.
std::string with_unit(double value, double base, const char* const* units, int num_units) {
    int unit = 0;
    while (unit + 1 < num_units && std::abs(value) >= base) {
        value /= base;
        ++unit;
    }
    return unit == 0 ? fmt::format("{:.0f}{}", value, units[0])
                     : fmt::format("{:.{}f}{}", value,
                                   value < 10    ? 2
                                   : value < 100 ? 1
                                                 : 0,
                                   units[unit]);
}

}  // namespace

std::string bytes_text(double bytes) {
    constexpr const char* units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
    return with_unit(bytes, 1024, units, 6);
}

std::string count_text(double count) {
    constexpr const char* units[] = {"", " k", " M", " G", " T", " P", " E"};
    return with_unit(count, 1000, units, 7);
}

std::string duration_text(double seconds) {
    if (!std::isfinite(seconds)) return "-";
    if (seconds < 100) return fmt::format("{:.{}f} s", seconds, seconds < 10 ? 1 : 0);
    if (seconds > 1e12) return fmt::format("{:.1e} s", seconds);
    const auto whole = static_cast<long long>(seconds);
    if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

}  // namespace switchyard
