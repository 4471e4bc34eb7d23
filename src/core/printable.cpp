// UTF-8 after Unicode 15, table 3-7.
#include "core/printable.hpp"

#include <fmt/format.h>

#include <cstdint>

namespace switchyard {
namespace {

struct Character {
    std::size_t bytes = 0;  // 0: none begins here
    std::uint32_t code = 0;
};

Character character_at(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t k) -> std::uint32_t {
        return at + k < text.size() ? static_cast<unsigned char>(text[at + k]) : 0u;
    };
    const std::uint32_t lead = byte(0);
    if (lead < 0x80) return {1, lead};
    const std::size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4) return {};
    std::uint32_t code = lead & (0xFFu >> (bytes + 1));
    for (std::size_t k = 1; k < bytes; ++k) {
        if ((byte(k) & 0xC0) != 0x80) return {};
        code = code << 6 | (byte(k) & 0x3F);
    }
    constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < least[bytes] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return {};
    return {bytes, code};
}

bool is_shown_as_it_is(std::uint32_t code) {
    if (code < 0x20) return code == '\n' || code == '\t';
    const bool turns = code == 0x200E || code == 0x200F || (code >= 0x202A && code <= 0x202E) ||
                       (code >= 0x2066 && code <= 0x2069);
    return !(code >= 0x7F && code <= 0x9F) && !turns;
}

}  // namespace

std::string printable(std::string_view text) {
    std::string shown;
    for (std::size_t at = 0; at < text.size();) {
        const auto [bytes, code] = character_at(text, at);
        if (bytes == 0) {
            shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[at]));
        } else if (is_shown_as_it_is(code)) {
            shown += text.substr(at, bytes);
        } else {
            shown += code < 0x80 ? fmt::format("\\x{:02x}", code) : fmt::format("\\u{{{:04x}}}", code);
        }
        at += bytes == 0 ? 1 : bytes;
    }
    return shown;
}

}  // namespace switchyard
