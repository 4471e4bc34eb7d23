// RunLog: log.jsonl, one JSON object per line, floats with 17 digits. The file always ends with a whole line,
// and after a resume it tells one history. Serial: rank 0 only.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "io/files/files.hpp"

namespace switchyard {

class RunLog {
  public:
    /// Opens `path` for appending. A torn last line, left by a crash, is moved to the superseded file beside
    /// it (log.jsonl -> log.superseded.jsonl); zeros, left by a power loss, are dropped. Throws UserError if
    /// the file cannot be opened, is a link or is not a regular file.
    explicit RunLog(std::string path);

    /// Appends a line with one system call, so that readers see it at once. Floats that are not finite become
    /// null. A write error (disk full, ...) is reported once on standard error and does not end the run; the
    /// line is lost.
    void write(const nlohmann::ordered_json& record);

    /// Moves to the superseded file every line whose "step" is beyond `step` and every line that is not a
    /// JSON object; zeros are dropped. A line without a step belongs to the line before it. `look` is called
    /// with each line that stays. Returns the number of moved lines. If it throws UserError, the log is
    /// unchanged.
    using Look = std::function<void(const nlohmann::ordered_json& line)>;
    std::int64_t move_aside_beyond(
        std::int64_t step, const Look& look = [](const nlohmann::ordered_json&) {});

    /// The number of lines lost to write errors.
    std::int64_t num_lost() const { return num_lost_; }
    std::string superseded_path() const;

  private:
    void open();
    void move_torn_line();

    std::string path_;
    FileDescriptor fd_;
    std::int64_t num_lost_ = 0;
};

/// One line without "
/// ": like dump() but with 17 significant digits, and always with a point or exponent.
std::string log_line(const nlohmann::ordered_json& value);

}  // namespace switchyard
