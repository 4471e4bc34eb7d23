// LineReader: lines of any length from a file descriptor; and the repair of text that is not UTF-8. Private
// to io/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "io/files/files.hpp"

namespace switchyard {

/// Reads lines; they are returned without "
/// " or "\r
/// ".
class LineReader {
  public:
    explicit LineReader(FileDescriptor fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
    /// The next line. If it is longer than `limit` bytes, a part of it that ends at a character, and
    /// `complete` is false. Returns false at the end. Throws UserError on a read error.
    bool next(std::string& line, bool& complete, std::size_t limit);
    /// Returns at least the next `bytes` bytes, or all if the input ends earlier. Nothing is consumed.
    std::string_view peek(std::size_t bytes);
    /// True if the input holds nothing beyond what the last peek() returned.
    bool ended() const { return ended_; }
    std::uint64_t bytes_read() const { return bytes_read_; }

  private:
    bool fill();

    FileDescriptor fd_;
    std::string name_, buffer_;
    std::size_t position_ = 0;
    std::uint64_t bytes_read_ = 0;
    bool ended_ = false;
};

inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";  // U+FFFD
/// Replaces every byte that is not part of a valid UTF-8 character by U+FFFD. Returns the number of such
/// bytes.
std::int64_t repair_utf8(std::string& text);

/// True if the text consists of spaces and line ends only.
bool is_blank(std::string_view text);

}  // namespace switchyard
