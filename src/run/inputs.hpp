// From words to a configuration that is complete: the file is read by rank 0, the vocabulary and method
// values are filled in, everything is validated before anything is allocated.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/tokens/token_file.hpp"
#include "methods/registry.hpp"
#include "run/checkpoints.hpp"

namespace switchyard {

/// files: none, a configuration file, or a run directory (its config.cfg, and run.dir is that directory).
/// Collective. Throws UserError on all ranks.
Config read_configuration(const Comm& world, const std::vector<std::string>& files,
                          const std::vector<std::string>& settings);

/// The file itself, or the newest checkpoint of a run directory: rank 0's view. Collective.
std::string find_checkpoint(const Comm& world, const std::string& name);

/// Opens data.tokens on every rank; model.vocab_size 0 becomes the file's. Throws UserError on all ranks.
std::unique_ptr<TokenFile> open_tokens(const Comm& world, Config&);

/// The stored configuration of a checkpoint beside the one asked for (complete): returns a line for each
/// difference that section 7.4 of the design allows; throws UserError naming key, stored and requested value
/// of the others.
std::vector<std::string> check_resumable(const CheckpointHeader&, const std::string& path,
                                         const Config& requested);
/// Throws UserError unless the token file is the one the checkpoint was trained on.
void check_data(const CheckpointHeader&, const std::string& path, const TokenFile&);
/// Throws UserError naming the key in which the model in a checkpoint differs (run.init_from).
void check_same_model(const Config& stored, const std::string& path, const Config& requested);

}  // namespace switchyard
