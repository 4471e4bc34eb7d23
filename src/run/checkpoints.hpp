// Checkpoints of a run: saving with retention, and finding the newest that is
// whole. Rank 0 looks at the file system and tells the others.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "io/tokens/token_file.hpp"
#include "train/checkpoint_header.hpp"
#include "train/train_state.hpp"

namespace switchyard {

struct SaveReport {
    std::string path;
    std::uint64_t bytes = 0;
    double seconds = 0;
};

class Checkpoints {
  public:
    /// Removes what an interrupted save left behind.
    Checkpoints(const Comm& world, std::string directory, const Config&, DataIdentity);

    /// Collective; then files beyond run.keep_last and not kept by run.keep_every are removed. Throws
    /// UserError on all ranks (disk full, ...); older files are then untouched.
    SaveReport save(TrainState&, std::int64_t first_sample);

    /// Reads the newest checkpoint that verifies into `state`; `check` sees its header first and may refuse
    /// it by throwing. A damaged file is named on standard error and renamed to *.damaged. Returns its path,
    /// nothing when there is no checkpoint. Throws UserError when all are damaged, and for a whole file that
    /// cannot be read here (another format version, no permission, out of memory).
    using Check = std::function<void(const CheckpointHeader&, const std::string& path)>;
    std::optional<std::string> restore(TrainState&, const Check& check);

    /// After the step that follows `step` had numbers that are not finite: a checkpoint of `step` leads there
    /// again, so it is renamed to *.diverged. Collective. Returns, for a message, which checkpoint is good
    /// and how to go on: "(...); ...".
    std::string advice_after_divergence(std::int64_t step) const;

    /// Step of the newest complete checkpoint known to this run, -1: none.
    std::int64_t newest_step() const { return newest_step_; }

  private:
    void remove_old_files(std::uint64_t newest_bytes) const;
    /// Empty: none. Throws UserError when those set aside are all there is: starting anew would bury the run.
    std::string newest_file() const;
    /// Collective. Renames a file that does not verify; a file that does was not read for another reason,
    /// which is then thrown.
    void set_aside(const std::string& path, const std::string& problem) const;

    Comm world_;
    std::string directory_;
    const Config& config_;
    DataIdentity data_;
    std::int64_t newest_step_ = -1;
    std::uint64_t dataset_bytes_ = 0;  // of a file; 0: not known yet
};

}  // namespace switchyard
