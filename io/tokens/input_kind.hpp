// What an input is, by its first bytes: files that are not text are refused by the name of their kind, with
// what to do about it. Private to io/.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

/// Enough of an input for both functions, if it has as much.
inline constexpr std::size_t kind_bytes = 64 << 10;

/// Throws UserError where `bytes`, the beginning of input `name`, are those of a kind of file that holds no
/// plain text: compressed, table, document, picture, model, program, another encoding.
void refuse_known_kinds(const std::string& name, std::string_view bytes);

/// Throws UserError where NUL bytes, control characters or bytes that are not UTF-8 say that this is not
/// text, or text in another encoding.
void refuse_unknown_binary(const std::string& name, std::string_view bytes);

}  // namespace switchyard
