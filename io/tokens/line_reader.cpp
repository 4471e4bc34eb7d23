// Reading in blocks, and the repair of text that is not UTF-8.
#include "io/tokens/line_reader.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/error.hpp"
#include "core/utf8.hpp"

namespace switchyard {
namespace {

constexpr std::size_t read_block = 1 << 20;

}  // namespace

bool is_blank(std::string_view text) {
    return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

bool LineReader::fill() {
    if (position_ > 0) {
        buffer_.erase(0, position_);
        position_ = 0;
    }
    const std::size_t old_size = buffer_.size();
    buffer_.resize(old_size + read_block);
    ssize_t count;
    do {
        count = ::read(fd_, buffer_.data() + old_size, read_block);
    } while (count < 0 && errno == EINTR);
    buffer_.resize(old_size + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    require(count >= 0, "cannot read `{}` {}", name_, system_problem);
    bytes_read_ += static_cast<std::uint64_t>(count);
    ended_ = count == 0;
    return count > 0;
}

std::string_view LineReader::peek(std::size_t bytes) {
    while (buffer_.size() - position_ < bytes && fill()) {
    }
    return std::string_view(buffer_).substr(position_);
}

bool LineReader::next(std::string& line, bool& complete, std::size_t limit) {
    std::size_t searched = 0;  // number of bytes after position_ that hold no line end
    complete = true;
    for (;;) {
        const std::size_t end = buffer_.find('\n', position_ + searched);
        const std::size_t length = (end == std::string::npos ? buffer_.size() : end) - position_;
        if (length > limit) {
            const std::size_t part = character_boundary(std::string_view(buffer_).substr(position_), limit);
            line.assign(buffer_, position_, part);
            position_ += part;
            complete = false;
            return true;
        }
        if (end != std::string::npos) {
            line.assign(buffer_, position_, length);
            position_ = end + 1;
            if (!line.empty() && line.back() == '\r') line.pop_back();
            return true;
        }
        searched = length;
        if (!fill()) {
            line.assign(buffer_, position_, length);
            position_ = buffer_.size();
            return length > 0;
        }
    }
}

std::int64_t repair_utf8(std::string& text) {
    std::size_t i = 0;
    while (i < text.size()) {
        const std::size_t length = utf8_at(text, i).bytes;
        if (length == 0) break;
        i += length;
    }
    if (i == text.size()) return 0;
    std::int64_t replaced = 0;
    std::string repaired = text.substr(0, i);
    while (i < text.size()) {
        const std::size_t length = utf8_at(text, i).bytes;
        if (length == 0) {
            repaired += replacement_character;
            ++replaced;
            ++i;
        } else {
            repaired.append(text, i, length);
            i += length;
        }
    }
    text = std::move(repaired);
    return replaced;
}

}  // namespace switchyard
