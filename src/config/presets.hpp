// Model sizes by name (design section 8).
#pragma once

#include "config/config.hpp"

namespace switchyard {

/// The names "nano, 20m, ..." in order of size.
std::string preset_names();

/// Fills the sizes that are zero from the preset, and the key-value heads from the heads. Throws UserError
/// for an unknown preset.
void fill_preset(ModelConfig&);

}  // namespace switchyard
