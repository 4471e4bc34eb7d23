// Appends lines, and moves lines aside. Whatever fails half-way, log.jsonl has whole lines only.
#include "io/run/run_log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "core/error.hpp"
#include "core/output.hpp"

namespace switchyard {
namespace {

using nlohmann::ordered_json;

constexpr std::uint64_t most_bytes = std::uint64_t{16} << 30;

std::string text_of(double value) {
    if (!std::isfinite(value)) return "null";
    std::string text = fmt::format("{:.17g}", value);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
}

void append_value(const ordered_json& value, std::string& out) {
    if (value.is_number_float()) {
        out += text_of(value.get<double>());
    } else if (value.is_object()) {
        out += '{';
        for (auto item = value.begin(); item != value.end(); ++item) {
            if (item != value.begin()) out += ", ";
            out +=
                ordered_json(item.key()).dump(-1, ' ', false, ordered_json::error_handler_t::replace) + ": ";
            append_value(item.value(), out);
        }
        out += '}';
    } else if (value.is_array()) {
        out += '[';
        for (std::size_t i = 0; i < value.size(); ++i) {
            if (i > 0) out += ", ";
            append_value(value[i], out);
        }
        out += ']';
    } else {
        out += value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    }
}

/// Appends lines to a file and syncs it; the first line creates the file.
class Appender {
  public:
    explicit Appender(std::string path) : path_(std::move(path)) {}
    void line(const std::string& text) {
        buffer_ += text;
        buffer_ += '\n';
        if (buffer_.size() > (1 << 20)) flush();
    }
    void finish() {
        flush();
        require(::fsync(fd_) == 0, "cannot sync `{}` {}", path_, system_problem);
    }

  private:
    void flush() {
        if (fd_ < 0) {
            fd_ = open_kept(path_, O_APPEND);
        }
        write_all(fd_, buffer_, path_);
        buffer_.clear();
    }

    std::string path_, buffer_;
    FileDescriptor fd_;
};

std::string without_zeros(std::string_view text) {
    std::string kept;
    std::copy_if(text.begin(), text.end(), std::back_inserter(kept), [](char c) { return c != '\0'; });
    return kept;
}

/// Parses a line. Nothing if it has more keys than any line of ours, because parsing an ordered object is
/// quadratic in its keys.
ordered_json parsed(const std::string& line) {
    constexpr int most_keys = 1000, deepest = 32;
    int keys = 0;
    auto value = ordered_json::parse(
        line,
        [&](int depth, ordered_json::parse_event_t event, ordered_json&) {
            return depth <= deepest && (event != ordered_json::parse_event_t::key || ++keys <= most_keys);
        },
        false);
    return keys <= most_keys ? value : ordered_json();
}

/// The steps of a log's lines, in order; decides for each line whether it stays.
class History {
  public:
    explicit History(std::int64_t step) : step_(step) {}
    bool keeps(const ordered_json& object) {
        if (!object.is_object()) return false;
        const auto step = object.find("step");
        if (step != object.end() && step->is_number())
            beyond_ = step->get<double>() > static_cast<double>(step_);
        return !beyond_;
    }

  private:
    std::int64_t step_;
    bool beyond_ = false;
};

}  // namespace

std::string log_line(const ordered_json& value) {
    std::string line;
    append_value(value, line);
    return line;
}

RunLog::RunLog(std::string path) : path_(std::move(path)) {
    open();
    move_torn_line();
}

void RunLog::open() {
    fd_ = open_kept(path_, O_APPEND);
    const std::uint64_t bytes = size_of_file(fd_, path_);
    require(bytes <= most_bytes, "log `{}` has {} bytes (no run writes that many); move it away", path_,
            bytes);
}

std::string RunLog::superseded_path() const {
    const std::string suffix = ".jsonl";
    return (path_.ends_with(suffix) ? path_.substr(0, path_.size() - suffix.size()) : path_) +
           ".superseded.jsonl";
}

/// Moves the text after the last "
/// ", which is searched backwards in blocks. Zeros in it (left by a power loss for blocks that never reached
/// the disk) are dropped.
void RunLog::move_torn_line() {
    const auto bytes = static_cast<std::int64_t>(size_of_file(fd_, path_));
    std::int64_t end = bytes;
    std::vector<std::string> parts;  // from the end of the file backwards
    std::vector<char> block(std::size_t{1} << 20);
    for (bool found = false; end > 0 && !found;) {
        const std::int64_t begin = std::max<std::int64_t>(0, end - static_cast<std::int64_t>(block.size()));
        const std::string_view text(block.data(), static_cast<std::size_t>(end - begin));
        const std::string error = read_fully(fd_, reinterpret_cast<std::byte*>(block.data()), text.size(),
                                             static_cast<std::uint64_t>(begin));
        require(error.empty(), "cannot read `{}` ({}); {}", path_, error, reading_advice);
        const std::size_t last = text.rfind('\n');
        found = last != text.npos;
        const std::size_t from = found ? last + 1 : 0;
        parts.push_back(without_zeros(text.substr(from)));
        end = begin + static_cast<std::int64_t>(from);
    }
    if (end == bytes) return;
    std::string torn;
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) torn += *part;
    if (!torn.empty()) {
        Appender superseded(superseded_path());
        superseded.line(torn);
        superseded.finish();
    }
    require(::ftruncate(fd_, end) == 0, "cannot shorten `{}` {}", path_, system_problem);
}

void RunLog::write(const ordered_json& record) {
    const std::string line = log_line(record) + "\n";
    struct stat status {};
    const bool sized = ::fstat(fd_, &status) == 0;
    try {
        write_all(fd_, line, path_);
    } catch (const UserError& problem) {
        // Removes what was written of the line, so that the next one starts cleanly.
        if (sized && ::ftruncate(fd_, status.st_size) != 0) open();
        if (num_lost_++ == 0)
            print_error("switchyard: warning: {}\n  the run goes on, and its log is incomplete",
                        problem.what());
    }
}

/// The log is read once, forwards, and up to the first line that moves it is not written again.
std::int64_t RunLog::move_aside_beyond(std::int64_t step, const Look& look) {
    std::ifstream in(path_);
    require(in.good(), "cannot read log `{}` {}", path_, system_problem);
    Appender superseded(superseded_path());
    History history(step);
    std::int64_t moved = 0, end = 0;  // end: bytes before the first line that moves
    std::string kept_after;           // lines after it that stay; few, if any
    bool whole = true;                // true as long as the file can stay as it is
    for (std::string stored; std::getline(in, stored);) {
        const std::string line = without_zeros(stored);
        const ordered_json object = parsed(line);
        const bool keep = line.empty() ? stored.empty() : history.keeps(object);
        whole = whole && keep && line.size() == stored.size();
        if (!keep) {
            if (!line.empty()) superseded.line(line), ++moved;
            continue;
        }
        if (whole)
            end += static_cast<std::int64_t>(line.size()) + 1;
        else
            kept_after += line + '\n';
        if (!line.empty()) look(object);
    }
    if (whole) return 0;
    if (moved > 0) superseded.finish();
    if (kept_after.empty()) {
        require(::ftruncate(fd_, end) == 0 && ::fsync(fd_) == 0, "cannot shorten `{}` {}", path_,
                system_problem);
        return moved;
    }
    std::string kept(static_cast<std::size_t>(end), '\0');
    const std::string error = read_fully(fd_, reinterpret_cast<std::byte*>(kept.data()), kept.size(), 0);
    require(error.empty(), "cannot read `{}` ({}); {}", path_, error, reading_advice);
    write_file(path_, kept + kept_after);
    open();
    return moved;
}

}  // namespace switchyard
