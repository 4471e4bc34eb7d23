// RunDirectory: the files of a run directory, and who may write them. Serial: rank 0 only.
//   config.cfg  environment.json  status.json  log.jsonl  log.superseded.jsonl  lock  checkpoints/
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "io/files/files.hpp"
#include "io/run/run_lock.hpp"

namespace switchyard {

/// status.json: the state of the run; `time` is UTC in ISO 8601.
struct RunStatus {
    std::string outcome;  // running, finished, stopped, requeue, failed
    std::string reason;
    std::int64_t step = 0;
    std::string time;
};

class RunDirectory {
  public:
    /// Makes `path` and its checkpoints/ if needed, checks that files can be written there, and takes the
    /// lock (io/run_lock.hpp). Throws UserError if it is not writable or in use (by which pid on which host).
    explicit RunDirectory(const std::string& path);
    /// To be called before a save: throws UserError if another run has taken the directory.
    void check_lock() const { lock_->check(); }

    const std::string& path() const { return path_; }
    std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
    std::string checkpoints() const { return checkpoints_of(path_); }
    static std::string checkpoints_of(const std::string& path) { return path + "/checkpoints"; }
    std::string log() const { return file("log.jsonl"); }

    /// Replace the file in one step, synced to disk. If they throw UserError, the old file is unchanged.
    void write_config(std::string_view text) const;
    void write_environment(const nlohmann::ordered_json&) const;
    void write_status(const RunStatus&) const;  // an empty time is replaced by the current time

    std::optional<std::string> read_config() const;
    /// Nothing if there is no status or it cannot be parsed.
    std::optional<RunStatus> read_status() const;

  private:
    std::string path_;
    std::unique_ptr<RunLock> lock_;
};

/// Needs no lock: for ranks that fail alone, possibly several at once. On a full disk the old file is
/// overwritten.
void write_run_status(const std::string& directory, const RunStatus&);
std::optional<RunStatus> read_run_status(const std::string& directory);

/// The current time in the format of status.json.
std::string utc_time();

}  // namespace switchyard
