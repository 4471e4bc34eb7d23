// Lines, UTF-8 repair, JSONL and the cutting of documents into segments.
#include "io/tokens/text_source.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.hpp"

namespace switchyard {
namespace {

constexpr std::size_t read_block = 1 << 20;
constexpr std::size_t text_line_limit = 1 << 20;
constexpr std::size_t sniffed_line_limit = 64 << 20;

bool is_continuation(char c) {
    return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

/// Largest position <= `position` that does not split a character of (valid or not) UTF-8.
std::size_t character_boundary(std::string_view text, std::size_t position) {
    for (std::size_t back = 0; back < 4 && back < position; ++back) {
        if (!is_continuation(text[position - back])) return position - back;
    }
    return position;
}

/// Bytes of the valid character at `i` (Unicode 15, table 3-7); 0: none starts there.
std::size_t character_length(std::string_view text, std::size_t i) {
    const auto byte = [&](std::size_t k) -> unsigned {
        return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u;
    };
    const auto between = [&](std::size_t k, unsigned low, unsigned high) {
        return byte(k) >= low && byte(k) <= high;
    };
    const unsigned lead = byte(0);
    if (lead < 0x80) return 1;
    if (lead >= 0xC2 && lead <= 0xDF) return between(1, 0x80, 0xBF) ? 2 : 0;
    if (lead >= 0xE0 && lead <= 0xEF) {
        const unsigned low = lead == 0xE0 ? 0xA0 : 0x80, high = lead == 0xED ? 0x9F : 0xBF;
        return between(1, low, high) && between(2, 0x80, 0xBF) ? 3 : 0;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        const unsigned low = lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xF4 ? 0x8F : 0xBF;
        return between(1, low, high) && between(2, 0x80, 0xBF) && between(3, 0x80, 0xBF) ? 4 : 0;
    }
    return 0;
}

bool is_blank(std::string_view text) {
    return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

/// Throws when the first bytes of a file belong to something that is not UTF-8 text.
void check_first_bytes(const std::string& name, std::string_view bytes) {
    const auto starts = [&](std::string_view magic) { return bytes.substr(0, magic.size()) == magic; };
    using namespace std::string_view_literals;
    require(
        !starts("\x1F\x8B"sv) && !starts("\x28\xB5\x2F\xFD"sv) &&
            !starts("\xFD"
                    "7zXZ"sv) &&
            !starts("BZh"sv),
        "`{}` is compressed (inputs are read as plain text); pipe it: zcat FILE | switchyard tokenize - ...",
        name);
    require(!starts("\xFF\xFE"sv) && !starts("\xFE\xFF"sv),
            "`{}` is UTF-16 (inputs are read as UTF-8); convert it: iconv -f utf-16 -t utf-8", name);
    require(
        !starts("\x89HDF\r\n"sv),
        "`{}` is an HDF5 file, not text (inputs are text or .jsonl files); a token file goes to --tokenizer",
        name);
}

}  // namespace

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
    require(count >= 0, "cannot read `{}`: {}", name_, system_reason);
    bytes_read_ += static_cast<std::uint64_t>(count);
    return count > 0;
}

bool LineReader::next(std::string& line, bool& complete, std::size_t limit) {
    std::size_t searched = 0;  // bytes after position_ known to hold no line end
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
        const std::size_t length = character_length(text, i);
        if (length == 0) break;
        i += length;
    }
    if (i == text.size()) return 0;
    std::int64_t replaced = 0;
    std::string repaired = text.substr(0, i);
    while (i < text.size()) {
        const std::size_t length = character_length(text, i);
        if (length == 0) {
            repaired += "\xEF\xBF\xBD";
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

std::string text_of_json_line(const std::string& line) {
    nlohmann::json object;
    try {
        object = nlohmann::json::parse(line);
    } catch (const nlohmann::json::exception& problem) {
        fail("not valid JSON: {}", problem.what());
    }
    require(object.is_object() && object.contains("text") && object["text"].is_string(),
            "not a JSON object with a string under the key \"text\"");
    return std::move(object["text"].get_ref<std::string&>());
}

bool is_jsonl_name(std::string_view name) {
    return name.ends_with(".jsonl");
}

FileDescriptor open_input(const TextInput& input) {
    FileDescriptor fd(input.path == "-" ? ::dup(STDIN_FILENO)
                                        : ::open(input.path.c_str(), O_RDONLY | O_CLOEXEC));
    require(fd >= 0, "cannot open input `{}`: {}", input.name, system_reason);
    return fd;
}

std::vector<TextInput> check_inputs(const std::vector<std::string>& names) {
    require(!names.empty(),
            "no input given (there is nothing to tokenize); name text or .jsonl files, or - for stdin");
    require(std::count(names.begin(), names.end(), "-") <= 1, "standard input `-` is given twice");
    std::vector<TextInput> inputs;
    for (const std::string& name : names) {
        TextInput input{name, name, 0, false, true};
        struct stat status {};
        if (name == "-") {
            input.name = "standard input";
            inputs.push_back(input);
            continue;
        }
        require(::stat(name.c_str(), &status) == 0,
                "cannot read input `{}`: {} (its text was to be tokenized); check the path", name,
                system_reason);
        require(!S_ISDIR(status.st_mode), "input `{}` is a folder (inputs are files); name its files: {}/*",
                name, name);
        if (S_ISREG(status.st_mode)) {
            input.size = static_cast<std::uint64_t>(status.st_size);
            input.seekable = true;
            input.stream = false;
            const FileDescriptor fd = open_input(input);
            char bytes[16];
            const ssize_t count = ::read(fd, bytes, sizeof bytes);
            require(count >= 0, "cannot read input `{}`: {}", name, system_reason);
            check_first_bytes(name, {bytes, static_cast<std::size_t>(count)});
        }
        inputs.push_back(input);
    }
    return inputs;
}

TextSource::TextSource(std::vector<TextInput> inputs, const std::string& document_separator, SegmentRule rule)
    : inputs_(std::move(inputs)), rule_(rule) {
    if (document_separator == "file") {
        separator_ = Separator::file;
    } else if (document_separator == "blank-lines") {
        separator_ = Separator::blank_lines;
    } else {
        require(document_separator == "line",
                "unknown document separator `{}` (it says where one document ends); use file, blank-lines or "
                "line",
                document_separator);
        separator_ = Separator::line;
    }
}

std::uint64_t TextSource::bytes_read() const {
    return finished_bytes_ + (reader_.empty() ? 0 : reader_[0].bytes_read());
}

bool TextSource::next(TextSegment& segment) {
    while (queue_.empty()) {
        if (!read_line()) return false;
    }
    segment = std::move(queue_.front());
    queue_.pop_front();
    return true;
}

bool TextSource::open_next() {
    if (!reader_.empty()) {
        finished_bytes_ += reader_[0].bytes_read();
        reader_.clear();
    }
    if (next_input_ == inputs_.size()) return false;
    const TextInput& input = inputs_[next_input_++];
    name_ = input.name;
    jsonl_ = is_jsonl_name(name_);
    sniff_ = input.stream && !jsonl_;
    line_number_ = 0;
    blank_lines_.clear();
    in_line_ = false;
    reader_.emplace_back(open_input(input), name_);
    return true;
}

/// Takes one line in; false when all inputs are done and nothing is left in the queue.
bool TextSource::read_line() {
    if (reader_.empty() && !open_next()) return false;
    std::string line;
    bool complete = true;
    const std::size_t limit = jsonl_ ? std::string::npos : sniff_ ? sniffed_line_limit : text_line_limit;
    if (!reader_[0].next(line, complete, limit)) {
        end_document();
        return open_next() || !queue_.empty();
    }
    if (!in_line_) ++line_number_;
    if (line_number_ == 1 && !in_line_) {
        check_first_bytes(name_, line);
        if (line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
    }
    if (const std::int64_t replaced = repair_utf8(line); replaced > 0) {
        if (num_replaced_ == 0) first_replaced_ = fmt::format("`{}` line {}", name_, line_number_);
        num_replaced_ += replaced;
    }
    if (sniff_) {
        sniff_ = false;
        try {
            if (line.starts_with('{')) jsonl_ = (text_of_json_line(line), true);
        } catch (const UserError&) {
        }
    }
    if (jsonl_) {
        take_json_line(line);
    } else {
        take_text_line(line, complete);
    }
    in_line_ = !complete;
    return true;
}

void TextSource::take_text_line(const std::string& line, bool complete) {
    if (in_line_) {
        add(line);
    } else if (is_blank(line) && complete) {
        if (separator_ == Separator::file) {
            if (open_) blank_lines_ += "\n" + line;  // kept if more text follows in the file
        } else {
            end_document();
        }
        return;
    } else if (open_) {
        add(blank_lines_ + "\n" + line);
    } else {
        add(line);
    }
    blank_lines_.clear();
    if (complete && separator_ == Separator::line) end_document();
}

void TextSource::take_json_line(const std::string& line) {
    if (is_blank(line)) return;
    try {
        const std::string text = text_of_json_line(line);
        if (is_blank(text)) return;
        add(text);
    } catch (const UserError& problem) {
        fail("`{}` line {}: {} (each line of a .jsonl file is one document); mend or remove the line", name_,
             line_number_, problem.what());
    }
    end_document();
}

void TextSource::add(std::string_view text) {
    if (!open_) {
        open_ = true;
        continued_ = false;
        ++num_documents_;
    }
    current_ += text;
    if (current_.size() > rule_.bytes) cut_segments();
}

void TextSource::end_document() {
    if (!open_) return;
    push(current_, true);
    current_.clear();
    open_ = false;
    blank_lines_.clear();
}

void TextSource::push(std::string_view text, bool ends) {
    queue_.push_back({std::string(text), num_documents_ - 1, next_input_ - 1, ends, !continued_});
    continued_ = true;
}

void TextSource::cut_segments() {
    std::string_view rest = current_;
    while (rest.size() > rule_.bytes) {
        std::size_t cut = rest.find('\n', rule_.bytes);
        while (cut != std::string_view::npos && rest[cut - 1] == '\n') cut = rest.find('\n', cut + 1);
        std::size_t dropped = 0;
        if (cut == std::string_view::npos) {
            if (rest.size() <= 16 * rule_.bytes) break;
            cut = rest.find(' ', rule_.bytes);
            while (cut != std::string_view::npos &&
                   (rest[cut - 1] == ' ' || cut + 1 == rest.size() || rest[cut + 1] == ' ')) {
                cut = rest.find(' ', cut + 1);
            }
            if (cut != std::string_view::npos) {
                dropped = rule_.drop_space ? 1 : 0;
            } else if (rest.size() > 32 * rule_.bytes) {
                cut = character_boundary(rest, 16 * rule_.bytes);
            } else {
                break;
            }
        }
        push(rest.substr(0, cut), false);
        rest.remove_prefix(cut + dropped);
    }
    current_.erase(0, current_.size() - rest.size());
}

}  // namespace switchyard
