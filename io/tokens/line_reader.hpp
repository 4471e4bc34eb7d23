// LineReader: lines of a file descriptor, of any length. And UTF-8: where characters end, and what becomes of
// bytes that are none. Private to io/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "io/files/files.hpp"

namespace switchyard {

/// Lines without "\n" or "\r\n".
class LineReader {
  public:
    explicit LineReader(FileDescriptor fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
    /// The next line, or, when it is longer than `limit` bytes, a part of it that ends at a character
    /// (`complete` is then false). False at the end. Throws UserError on a read error.
    bool next(std::string& line, bool& complete, std::size_t limit);
    /// What comes next, at least `bytes` of it unless the input ends before. Nothing is taken.
    std::string_view peek(std::size_t bytes);
    /// The input holds nothing behind what was peeked at last.
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
/// Replaces every byte that is not part of a valid UTF-8 character by U+FFFD; returns how many.
std::int64_t repair_utf8(std::string& text);

/// Nothing but spaces and line ends.
bool is_blank(std::string_view text);

}  // namespace switchyard
