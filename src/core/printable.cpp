// Characters on which a terminal would act are written as escapes; all others are unchanged.
#include "core/printable.hpp"

#include <fmt/format.h>

#include <cstdint>

#include "core/utf8.hpp"

namespace switchyard {
namespace {

bool is_shown_as_it_is(char32_t code) {
    if (code < 0x20) return code == '\n' || code == '\t';
    const bool turns = code == 0x200E || code == 0x200F || (code >= 0x202A && code <= 0x202E) ||
                       (code >= 0x2066 && code <= 0x2069);
    return !(code >= 0x7F && code <= 0x9F) && !turns;
}

}  // namespace

std::string printable(std::string_view text) {
    std::string shown;
    for (std::size_t at = 0; at < text.size();) {
        const auto [bytes, code] = utf8_at(text, at);
        if (bytes == 0) {
            shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[at]));
        } else if (is_shown_as_it_is(code)) {
            shown += text.substr(at, bytes);
        } else {
            shown += code < 0x80 ? fmt::format("\\x{:02x}", static_cast<std::uint32_t>(code))
                                 : fmt::format("\\u{{{:04x}}}", static_cast<std::uint32_t>(code));
        }
        at += bytes == 0 ? 1 : bytes;
    }
    return shown;
}

}  // namespace switchyard
