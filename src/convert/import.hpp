// Weights of a Hugging Face LLaMA directory as a checkpoint for run.init_from and eval.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

struct ImportRequest {
    std::string directory, output;
    std::vector<std::string> settings;  // --data.key=value
    std::string dtype;  // compute type of the checkpoint; empty: bf16 if all values are, else f32
};

/// Serial, tensor by tensor. Returns a line about what was done. Throws UserError naming key, tensor or file;
/// then no output is left behind.
std::string import_weights(const ImportRequest&);

}  // namespace switchyard
