// RunDirectory: what lives in a run directory, who may write there and how. Serial: rank 0 only.
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

/// status.json: how the run stands; `time` is UTC in ISO 8601.
struct RunStatus {
    std::string outcome;  // running, finished, stopped, requeue, failed
    std::string reason;
    std::int64_t step = 0;
    std::string time;
};

class RunDirectory {
  public:
    /// Makes `path` and its checkpoints/ as needed, checks that files can be written there and takes the
    /// lock (io/run_lock.hpp). Throws UserError: not writable, in use (by which pid on which host).
    explicit RunDirectory(const std::string& path);
    /// Before a save: throws UserError when another run has taken the directory.
    void check_lock() const { lock_->check(); }

    const std::string& path() const { return path_; }
    std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
    std::string checkpoints() const { return checkpoints_of(path_); }
    static std::string checkpoints_of(const std::string& path) { return path + "/checkpoints"; }
    std::string log() const { return file("log.jsonl"); }

    /// Replace the file in one step, synced to disk; throw UserError, and then the old file is untouched.
    void write_config(std::string_view text) const;
    void write_environment(const nlohmann::ordered_json&) const;
    void write_status(const RunStatus&) const;  // an empty time becomes now

    std::optional<std::string> read_config() const;
    /// Nothing when there is none or it cannot be understood.
    std::optional<RunStatus> read_status() const;

  private:
    std::string path_;
    std::unique_ptr<RunLock> lock_;
};

/// Without the lock: for ranks that fail alone, also several at once. On a full disk the old file is
/// overwritten.
void write_run_status(const std::string& directory, const RunStatus&);
std::optional<RunStatus> read_run_status(const std::string& directory);

/// Now, as in status.json.
std::string utc_time();

}  // namespace switchyard
