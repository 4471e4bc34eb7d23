// Checkpoints of a run: saving with retention, and finding the newest one that is undamaged. Rank 0 looks at
// the file system and tells the others.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "io/checkpoint/checkpoint_file.hpp"
#include "io/tokens/token_file.hpp"
#include "train/checkpoint_header.hpp"
#include "train/train_state.hpp"

namespace switchyard {

/// How a save ended.
struct SaveReport {
    std::int64_t step = 0;
    std::string path;
    std::uint64_t bytes = 0;
    double seconds = 0;   // from its beginning until the file has its name
    double stalled = 0;   // s of them in which training stood still
    std::string problem;  // empty: the file is there

    /// With SWITCHYARD_COUNT_CALLS=1: what it took.
    struct Counts {
        std::uint64_t collectives = 0, rounds = 0;               // of every rank; a round is one more
        std::uint64_t windows = 0, most_writes = 0, writes = 0;  // by the rank that wrote most; by all
        std::uint64_t most_bytes = 0, bytes = 0;
    };
    std::optional<Counts> counts;
};

/// The counts as a line for people.
std::string counts_line(const SaveReport::Counts&, int ranks);

class Checkpoints {
  public:
    /// Removes what an interrupted save left behind.
    Checkpoints(const Comm& world, std::string directory, const Config&, DataIdentity);
    ~Checkpoints();

    /// Collective, once the state has its memory. From now on begin() saves in the background, if the copy of
    /// `file_bytes` fits into the memory of every node beside what is in use there; else says why it does
    /// not.
    std::string save_in_background(const Topology&, std::uint64_t file_bytes);

    /// Collective. Saves the state as it is: in the background it returns as soon as the values are copied
    /// and have been brought to the ranks that write them. None may be under way. A save that fails costs no
    /// older file; ended() tells. held: nothing is written until somebody waits (for tests).
    void begin(TrainState&, std::int64_t first_sample, bool held = false);
    /// Collective. The report of the save that was begun last, once: nothing while it goes on, unless `wait`.
    /// Then files beyond run.keep_last and not kept by run.keep_every are removed, after a save in the
    /// background by a thread.
    enum class Wait { no, yes };
    std::optional<SaveReport> ended(Wait);
    /// Whether a save that was begun in the background has not ended.
    bool under_way() const;

    /// In the foreground. Throws UserError on all ranks where it fails (disk full, ...).
    SaveReport save(TrainState&, std::int64_t first_sample);

    /// Reads the newest checkpoint that verifies into `state`; `check` sees its header first and may refuse
    /// it by throwing. A damaged file is named on standard error and renamed to *.damaged. Returns its path,
    /// nothing when there is no checkpoint. Throws UserError when all are damaged, and for a whole file that
    /// cannot be read here (another format version, no permission, out of memory).
    /// `progress`: bytes read and bytes in all, now and then.
    using Check = std::function<void(const CheckpointHeader&, const std::string& path)>;
    std::optional<std::string> restore(TrainState&, const Check& check,
                                       const CheckpointReader::Progress& progress = {});

    /// After the step that follows `step` had numbers that are not finite: a checkpoint of `step` leads there
    /// again, so it is renamed to *.diverged. Collective. Returns, for a message, which checkpoint is good
    /// and how to go on: "(...); ...".
    std::string advice_after_divergence(std::int64_t step);

    /// Step of the newest complete checkpoint known to this run, -1: none.
    std::int64_t newest_step() const { return newest_step_; }

  private:
    /// Removes what retention does not keep. This takes long for large files, so a thread does it after a
    /// save in the background.
    void remove_old_files(std::uint64_t newest_bytes, bool in_background);
    /// Path of the newest checkpoint, empty if there is none. Throws UserError if only files that were set
    /// aside are left, because a run that starts anew would take its place.
    std::string newest_file() const;
    /// Collective. Names and renames a damaged file.
    void set_aside(const std::string& path, const std::string& problem) const;

    struct Save;
    void start(TrainState&, std::int64_t first_sample, bool in_background);
    void finish(Save&);
    void count_calls_of(Save&) const;

    Comm world_;
    std::string directory_;
    const Config& config_;
    DataIdentity data_;
    std::int64_t newest_step_ = -1;
    bool in_background_ = false;
    std::unique_ptr<Save> save_;  // under way
    std::jthread removal_;        // of old files; rank 0
};

}  // namespace switchyard
