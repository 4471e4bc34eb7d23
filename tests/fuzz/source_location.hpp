// clang 14 with the headers of GCC 12 has no std::source_location, so the fuzzing build includes this
// replacement first. It gives no location.
#pragma once

#include <source_location>

#ifndef __cpp_lib_source_location
#include <cstdint>

namespace std {

struct source_location {
    static constexpr source_location current() noexcept { return {}; }
    constexpr uint_least32_t line() const noexcept { return 0; }
    constexpr uint_least32_t column() const noexcept { return 0; }
    constexpr const char* file_name() const noexcept { return "unknown"; }
    constexpr const char* function_name() const noexcept { return "unknown"; }
};

}  // namespace std
#endif
