// TextSource: the documents of text and JSON-lines inputs as one stream of segments, so that a document may
// be larger than memory. All segments are valid UTF-8. Private to io/.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "io/tokens/text_input.hpp"

namespace switchyard {

/// A part of a document. A part that does not start its document begins with the "
/// " or " " at which it was cut; the space is dropped with SegmentRule::drop_space, and text without either
/// is cut at any character.
struct TextSegment {
    std::string text;
    std::int64_t document = 0;
    std::size_t input = 0;  // index of the input
    bool ends_document = false, starts_document = false;
};

struct SegmentRule {
    /// A document is cut at the first line end after this many bytes, or at a space after 16 times as many.
    std::size_t bytes = 65536;
    bool drop_space = false;
};

/// How often something occurred, and where first ("`FILE` line N").
struct Incidents {
    std::int64_t count = 0;
    std::string first;
};

class TextSource {
  public:
    TextSource(std::vector<TextInput> inputs, TextRule, const std::string& document_separator, SegmentRule);

    /// Returns false at the end of all inputs.
    bool next(TextSegment&);

    std::uint64_t bytes_read() const;
    std::int64_t num_documents() const { return num_documents_; }
    /// The inputs; the format is decided for those that were opened.
    const std::vector<TextInput>& inputs() const { return inputs_; }
    const TextRule& rule() const { return text_rule_; }
    const Incidents& nul_bytes() const { return nul_bytes_; }
    const Incidents& invalid_bytes() const { return invalid_bytes_; }      // became U+FFFD
    const Incidents& lone_surrogates() const { return lone_surrogates_; }  // became U+FFFD too
    std::int64_t num_bad_lines() const { return num_bad_lines_; }          // were left out
    const std::vector<std::string>& bad_lines() const {
        return bad_lines_;
    }  // the first few bad lines and what is wrong with them

  private:
    enum class Separator { file, blank_lines, line };

    bool read_line();
    bool open_next();
    void take_text_line(const std::string& line, bool complete);
    void take_json_line(const std::string& line, bool complete);
    void bad_line(const std::string& problem);
    void repair(std::string& text);
    void note(Incidents& incidents, std::int64_t times) const;
    std::string place() const;
    void add(std::string_view text);
    void end_document();
    void cut_segments();
    void push(std::string_view text, bool ends);

    std::vector<TextInput> inputs_;
    TextRule text_rule_;
    Separator separator_;
    SegmentRule rule_;
    std::size_t next_input_ = 0;
    std::vector<LineReader> reader_;  // at most one
    std::string name_;
    bool json_lines_ = false;
    std::int64_t line_number_ = 0;
    std::string blank_lines_;  // not yet known to be inside the document
    bool in_line_ = false;     // the last part of a line was not the end of the line
    std::uint64_t finished_bytes_ = 0;
    std::deque<TextSegment> queue_;
    std::string current_;
    bool open_ = false, continued_ = false;
    std::int64_t num_documents_ = 0, num_bad_lines_ = 0;
    Incidents nul_bytes_, invalid_bytes_, lone_surrogates_;
    std::vector<std::string> bad_lines_;
};

}  // namespace switchyard
