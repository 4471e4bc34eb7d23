// Writes the weights of a Hugging Face LLaMA directory as a checkpoint for run.init_from and eval.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

struct ImportRequest {
    std::string directory, output;
    std::vector<std::string> settings;  // --data.key=value
    std::string dtype;  // compute type of the checkpoint; empty: bf16 if all values are bf16, else f32
};

/// Serial, one tensor at a time. Returns a line for the user about the result. Throws UserError naming key,
/// tensor or file, and then leaves no output behind.
std::string import_weights(const ImportRequest&);

}  // namespace switchyard
