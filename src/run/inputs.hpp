// From the command line to a complete configuration: rank 0 reads the file, vocabulary and method values are
// filled in, and everything is validated before anything is allocated.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/comm.hpp"
#include "config/settings.hpp"
#include "io/tokens/token_file.hpp"
#include "methods/registry.hpp"

namespace switchyard {

/// files: none, a configuration file, or a run directory (its config.cfg, and run.dir is that directory).
/// Collective. Throws UserError on all ranks.
ParsedConfig read_configuration(const Comm& world, const std::vector<std::string>& files,
                                const std::vector<std::string>& settings);

/// What the file sets, in its order and unchecked, unknown sections and keys included.
/// Collective. Throws UserError on all ranks.
std::vector<Setting> settings_as_written(const Comm& world, const std::string& file);

/// The file itself, or the newest checkpoint of a run directory: rank 0's view. Collective.
std::string find_checkpoint(const Comm& world, const std::string& name);

/// data.tokens, read by rank 0; model.vocab_size 0 becomes the file's. Throws UserError on all ranks.
std::unique_ptr<TokenFile> open_tokens(const Comm& world, Config&);

/// For commands that read no tokens: model.vocab_size 0 becomes that of data.tokens or, where none is named,
/// of T5's tokenizer, as in the papers that we compare with. Collective. Throws UserError on all ranks.
void resolve_vocabulary(const Comm& world, Config&);

}  // namespace switchyard
