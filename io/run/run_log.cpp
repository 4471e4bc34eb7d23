// Appending, and moving lines aside. Whatever fails half-way, log.jsonl holds whole lines only.
#include "io/run/run_log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "core/error.hpp"
#include "core/output.hpp"

namespace switchyard {
namespace {

using nlohmann::ordered_json;

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

/// Appends lines to a file, made with the first of them, and syncs it.
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
        require(::fsync(fd_) == 0, "cannot sync `{}`: {}", path_, system_reason);
    }

  private:
    void flush() {
        if (fd_ < 0) {
            fd_ = FileDescriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
            require(fd_ >= 0, "cannot open `{}`: {}", path_, system_reason);
        }
        write_all(fd_, buffer_, path_);
        buffer_.clear();
    }

    std::string path_, buffer_;
    FileDescriptor fd_;
};

/// Steps of the lines of a log, in order; decides for each whether it stays.
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
    fd_ = FileDescriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    require(fd_ >= 0, "cannot open log `{}`: {}", path_, system_reason);
}

std::string RunLog::superseded_path() const {
    const std::string suffix = ".jsonl";
    return (path_.ends_with(suffix) ? path_.substr(0, path_.size() - suffix.size()) : path_) +
           ".superseded.jsonl";
}

void RunLog::move_torn_line() {
    struct stat status {};
    require(::fstat(fd_, &status) == 0, "cannot read `{}`: {}", path_, system_reason);
    off_t end = status.st_size;
    std::string torn;
    char c = 0;
    while (end > 0 && ::pread(fd_, &c, 1, end - 1) == 1 && c != '\n') {
        torn.insert(torn.begin(), c);
        --end;
    }
    if (torn.empty()) return;
    Appender superseded(superseded_path());
    superseded.line(torn);
    superseded.finish();
    require(::ftruncate(fd_, end) == 0, "cannot shorten `{}`: {}", path_, system_reason);
}

void RunLog::write(const ordered_json& record) {
    const std::string line = log_line(record) + "\n";
    struct stat status {};
    const bool sized = ::fstat(fd_, &status) == 0;
    try {
        write_all(fd_, line, path_);
    } catch (const UserError& problem) {
        // What was written of the line goes again, so that the next one starts cleanly.
        if (sized && ::ftruncate(fd_, status.st_size) != 0) open();
        if (num_lost_++ == 0)
            print_error("switchyard: warning: {} (the run goes on, its log is incomplete); free space",
                        problem.what());
    }
}

/// Lines are moved from behind: the log is read once, and up to the first line that moves it stays as it
/// lies.
std::int64_t RunLog::move_aside_beyond(std::int64_t step, const Look& look) {
    std::ifstream in(path_);
    require(in.good(), "cannot read log `{}`", path_);
    Appender superseded(superseded_path());
    History history(step);
    std::int64_t moved = 0, end = 0;  // end: bytes up to the first line that moves
    std::string kept_after;           // lines that stay behind it: few, if any
    for (std::string line; std::getline(in, line);) {
        const auto object = ordered_json::parse(line, nullptr, false);
        const bool keep = line.empty() || history.keeps(object);
        if (!keep) {
            superseded.line(line);
            ++moved;
            continue;
        }
        if (moved == 0)
            end += static_cast<std::int64_t>(line.size()) + 1;
        else
            kept_after += line + '\n';
        if (!line.empty()) look(object);
    }
    if (moved == 0) return 0;
    superseded.finish();
    if (kept_after.empty()) {
        require(::ftruncate(fd_, end) == 0 && ::fsync(fd_) == 0, "cannot shorten `{}`: {}", path_,
                system_reason);
        return moved;
    }
    write_file(path_, read_file(path_).substr(0, static_cast<std::size_t>(end)) + kept_after);
    open();
    return moved;
}

}  // namespace switchyard
