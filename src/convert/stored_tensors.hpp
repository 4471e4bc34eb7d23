// The tensors of a Hugging Face directory against those that its config.json asks for.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "core/shard.hpp"
#include "io/hugging_face/safetensors.hpp"

namespace switchyard {

/// Weight of the model -> name of the stored tensor that holds it. Throws UserError naming tensor and file:
/// tensors missing or too many, other shapes and types, an lm_head.weight that differs from tied embeddings.
/// Warns of tables of rotary angles that are not those of rope_theta.
std::map<std::string, std::string> find_stored_tensors(const std::string& directory,
                                                       const SafetensorsDirectory&, const ModelConfig&,
                                                       const std::vector<Shard>& weights);

}  // namespace switchyard
