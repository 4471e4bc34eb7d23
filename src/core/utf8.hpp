// UTF-8 as in Unicode 15, table 3-7: overlong forms, surrogates and values above U+10FFFF are not characters.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace switchyard {

struct Utf8Character {
    std::size_t bytes = 0;  // 0: no valid character begins here
    char32_t code = 0;
};

inline Utf8Character utf8_at(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t k) -> char32_t {
        return at + k < text.size() ? static_cast<unsigned char>(text[at + k]) : 0u;
    };
    const char32_t lead = byte(0);
    if (lead < 0x80) return {1, lead};
    if (lead < 0xC2 || lead > 0xF4) return {};
    const std::size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    char32_t code = lead & (0xFFu >> (bytes + 1));
    for (std::size_t k = 1; k < bytes; ++k) {
        if ((byte(k) & 0xC0) != 0x80) return {};
        code = code << 6 | (byte(k) & 0x3F);
    }
    constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < least[bytes] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return {};
    return {bytes, code};
}

/// Largest position <= `position` at which `text` can be cut without splitting a character. Where more than
/// three continuation bytes stand before `position` there is no character to split: `position` itself.
inline std::size_t character_boundary(std::string_view text, std::size_t position) {
    const auto continues = [&](std::size_t i) {
        return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
    };
    for (std::size_t back = 0; back < std::min<std::size_t>(4, position); ++back)
        if (!continues(position - back)) return position - back;
    return position;
}

/// The UTF-8 of a code point, which must not be a surrogate.
inline std::string utf8_of(char32_t code) {
    const auto byte = [](char32_t value) { return static_cast<char>(value); };
    const auto low = [&](int shift) { return byte(0x80 | (code >> shift & 0x3F)); };
    if (code < 0x80) return {byte(code)};
    if (code < 0x800) return {byte(0xC0 | code >> 6), low(0)};
    if (code < 0x10000) return {byte(0xE0 | code >> 12), low(6), low(0)};
    return {byte(0xF0 | code >> 18), low(12), low(6), low(0)};
}

}  // namespace switchyard
