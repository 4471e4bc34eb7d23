// Cuts documents into segments.
#include "io/tokens/text_source.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/utf8.hpp"
#include "io/tokens/json_line.hpp"

namespace switchyard {
namespace {

constexpr std::size_t text_line_limit = 1 << 20, json_line_limit = 1 << 30;
constexpr std::size_t most_bad_lines_named = 5;

}  // namespace

TextSource::TextSource(std::vector<TextInput> inputs, TextRule text_rule,
                       const std::string& document_separator, SegmentRule rule)
    : inputs_(std::move(inputs)), text_rule_(std::move(text_rule)), rule_(rule) {
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
    TextInput& input = inputs_[next_input_++];
    name_ = input.name;
    line_number_ = 0;
    blank_lines_.clear();
    in_line_ = false;
    reader_.emplace_back(open_input(input), name_);
    if (input.format == TextFormat::automatic) input.format = decide_format(reader_[0], name_, text_rule_);
    json_lines_ = input.format == TextFormat::json_lines;
    return true;
}

std::string TextSource::place() const {
    return fmt::format("`{}` line {}", name_, line_number_);
}

void TextSource::note(Incidents& incidents, std::int64_t times) const {
    if (times > 0 && incidents.count == 0) incidents.first = place();
    incidents.count += times;
}

void TextSource::repair(std::string& text) {
    note(nul_bytes_, std::count(text.begin(), text.end(), '\0'));
    note(invalid_bytes_, repair_utf8(text));
}

/// Reads one line; returns false when all inputs are finished and the queue is empty.
bool TextSource::read_line() {
    if (reader_.empty() && !open_next()) return false;
    std::string line;
    bool complete = true;
    if (!reader_[0].next(line, complete, json_lines_ ? json_line_limit : text_line_limit)) {
        end_document();
        return open_next() || !queue_.empty();
    }
    if (!in_line_) ++line_number_;
    if (line_number_ == 1 && !in_line_ && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
    if (json_lines_) {
        take_json_line(line, complete);
    } else {
        repair(line);
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

void TextSource::take_json_line(const std::string& line, bool complete) {
    if (in_line_) return;  // this is the rest of a line that was too long
    if (is_blank(line)) return;
    JsonText found;
    try {
        require(complete, "longer than {} bytes", json_line_limit);
        found = text_of_json_line(line, text_rule_.text_key);
    } catch (const UserError& problem) {
        return bad_line(problem.what());
    }
    note(lone_surrogates_, found.lone_surrogates);
    repair(found.text);
    if (is_blank(found.text)) return;
    add(found.text);
    end_document();
}

void TextSource::bad_line(const std::string& problem) {
    if (!text_rule_.skip_bad_lines) refuse_bad_line(place(), problem);
    if (bad_lines_.size() < most_bad_lines_named) bad_lines_.push_back(place() + ": " + problem);
    ++num_bad_lines_;
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
