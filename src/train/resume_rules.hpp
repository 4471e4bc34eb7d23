// What may change in a run that resumes from a checkpoint (design section 7.4), and from what a new run may
// start.
#pragma once

#include <string>
#include <vector>

#include "train/checkpoint_header.hpp"

namespace switchyard {

/// A difference that is allowed on resume.
struct AllowedChange {
    ConfigChange change;
    /// How the change makes this another run than the one that was interrupted; "" if it does not.
    std::string effect;
    std::string line() const;
};

/// Compares the stored configuration of a checkpoint with the requested one (complete). Returns the allowed
/// differences: those of section 7.4 of the design, more run.steps if the schedule allows it, and lower
/// rates. Throws UserError naming key, stored and requested value of a difference that is not allowed.
std::vector<AllowedChange> check_resumable(const CheckpointHeader&, const std::string& path,
                                           const Config& requested);
/// Keys that are `auto` here, or that are newer than the run and not given, get their value from the newest
/// readable checkpoint in run.dir, if there is one, so that a new default does not change a run that has
/// begun. Collective.
void keep_stored_values(const Comm& world, ParsedConfig& requested);
/// Throws UserError unless the checkpoint was trained on this token file.
void check_data(const CheckpointHeader&, const std::string& path, const TokenFile&);
/// Throws UserError naming the key if the model of a checkpoint for run.init_from differs.
void check_same_model(const Config& stored, const std::string& path, const Config& requested);

/// Throws UserError naming the key if method or compute type differ (run.init_state = all), or naming the
/// method if its state cannot go on at step 0.
void check_same_method(const Config& stored, const std::string& path, const Config& requested);

}  // namespace switchyard
