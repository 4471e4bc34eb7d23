// Recognises the kind of an input by its first bytes. Files that are not text are refused with the name of
// their kind and what to do. Private to io/.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

/// Number of bytes that both functions need, if the input has as many.
inline constexpr std::size_t kind_bytes = 64 << 10;

/// Throws UserError if `bytes`, the beginning of input `name`, belong to a kind of file that holds no plain
/// text: compressed, table, document, picture, model, program, another encoding.
void refuse_known_kinds(const std::string& name, std::string_view bytes);

/// Throws UserError if NUL bytes, control characters or bytes that are not UTF-8 show that the input is not
/// text, or is text in another encoding.
void refuse_unknown_binary(const std::string& name, std::string_view bytes);

}  // namespace switchyard
