// Compares the tensors of a Hugging Face directory with those that its config.json requires.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "core/shard.hpp"
#include "io/hugging_face/safetensors.hpp"

namespace switchyard {

/// Maps each weight of the model to the name of the stored tensor that holds it. Throws UserError naming
/// tensor and file for missing or surplus tensors, wrong shapes or types, and an lm_head.weight that differs
/// from tied embeddings. Warns of tables of rotary angles that do not follow from rope_theta.
std::map<std::string, std::string> find_stored_tensors(const std::string& directory,
                                                       const SafetensorsDirectory&, const ModelConfig&,
                                                       const std::vector<Shard>& weights);

}  // namespace switchyard
