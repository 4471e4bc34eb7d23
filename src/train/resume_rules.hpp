// What a run may change when it goes on from a checkpoint (design section 7.4), and what it may start from.
#pragma once

#include <string>
#include <vector>

#include "train/checkpoint_header.hpp"

namespace switchyard {

/// A difference that a resumed run may have.
struct AllowedChange {
    ConfigChange change;
    /// What makes the run another one than that which was interrupted, "": nothing.
    std::string effect;
    std::string line() const;
};

/// The stored configuration of a checkpoint beside the one asked for (complete): returns the differences that
/// are allowed: those of section 7.4 of the design, more run.steps where the schedule allows it, and lower
/// rates. Throws UserError naming key, stored and requested value of the others.
std::vector<AllowedChange> check_resumable(const CheckpointHeader&, const std::string& path,
                                           const Config& requested);
/// Keys that are `auto` here, or that came later and are not given, take the value that the newest readable
/// checkpoint of run.dir was written with, if there is one: what the program would choose by now does not
/// change a run under way. Collective.
void keep_stored_values(const Comm& world, ParsedConfig& requested);
/// Throws UserError unless the token file is the one the checkpoint was trained on.
void check_data(const CheckpointHeader&, const std::string& path, const TokenFile&);
/// Throws UserError naming the key in which the model in a checkpoint differs (run.init_from), or the method
/// that refuses to start another run.
void check_same_model(const Config& stored, const std::string& path, const Config& requested);

/// Throws UserError naming the key in which method or compute type differ (run.init_state = all).
void check_same_method(const Config& stored, const std::string& path, const Config& requested);

}  // namespace switchyard
