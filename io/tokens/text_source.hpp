// TextSource: the documents of text and JSONL inputs as one stream of segments, so that a document may be
// larger than memory. Private to io/. Everything it hands out is valid UTF-8.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "io/files/files.hpp"

namespace switchyard {

/// Lines of a file descriptor, without "\n" or "\r\n".
class LineReader {
  public:
    explicit LineReader(FileDescriptor fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
    /// The next line, or, when it is longer than `limit` bytes, a part of it that ends at a character
    /// (`complete` is then false). False at the end. Throws UserError on a read error.
    bool next(std::string& line, bool& complete, std::size_t limit);
    std::uint64_t bytes_read() const { return bytes_read_; }

  private:
    bool fill();

    FileDescriptor fd_;
    std::string name_, buffer_;
    std::size_t position_ = 0;
    std::uint64_t bytes_read_ = 0;
};

/// Replaces every byte that is no part of a valid UTF-8 character by U+FFFD; returns how many.
std::int64_t repair_utf8(std::string& text);

/// The "text" of a JSONL line. Throws UserError without file and line.
std::string text_of_json_line(const std::string& line);
bool is_jsonl_name(std::string_view name);

/// One input, opened; `size` is 0 when it cannot be known.
struct TextInput {
    std::string name;  // for messages
    std::string path;  // "-": standard input
    std::uint64_t size = 0;
    bool seekable = false;
    bool stream = false;  // no file with a name that could say .jsonl: the first line decides
};
/// Checks that every input can be read and looks like text (not compressed, UTF-16, HDF5). Throws UserError.
std::vector<TextInput> check_inputs(const std::vector<std::string>& names);
FileDescriptor open_input(const TextInput&);

/// A part of a document. One that does not start its document begins with the "\n" or " " where it was cut,
/// except that the space is dropped with SegmentRule::drop_space and that a text without either is cut
/// anywhere.
struct TextSegment {
    std::string text;
    std::int64_t document = 0;
    std::size_t input = 0;  // its index among the inputs
    bool ends_document = false, starts_document = false;
};

struct SegmentRule {
    std::size_t bytes =
        65536;  // cut at the first line end after that many bytes; at a space after 16 times as many
    bool drop_space = false;
};

class TextSource {
  public:
    TextSource(std::vector<TextInput> inputs, const std::string& document_separator, SegmentRule);

    /// False at the end of all inputs.
    bool next(TextSegment&);

    std::uint64_t bytes_read() const;
    std::int64_t num_documents() const { return num_documents_; }
    std::int64_t num_replaced() const { return num_replaced_; }
    const std::string& first_replaced() const { return first_replaced_; }  // "FILE line N"

  private:
    enum class Separator { file, blank_lines, line };

    bool read_line();
    bool open_next();
    void take_text_line(const std::string& line, bool complete);
    void take_json_line(const std::string& line);
    void add(std::string_view text);
    void end_document();
    void cut_segments();
    void push(std::string_view text, bool ends);

    std::vector<TextInput> inputs_;
    Separator separator_;
    SegmentRule rule_;
    std::size_t next_input_ = 0;
    std::vector<LineReader> reader_;  // one or none
    std::string name_;
    bool jsonl_ = false, sniff_ = false;
    std::int64_t line_number_ = 0;
    std::string blank_lines_;  // not yet known to lie inside the document
    bool in_line_ = false;     // the last part of a line was not its end
    std::uint64_t finished_bytes_ = 0;
    std::deque<TextSegment> queue_;
    std::string current_;
    bool open_ = false, continued_ = false;
    std::int64_t num_documents_ = 0, num_replaced_ = 0;
    std::string first_replaced_;
};

}  // namespace switchyard
