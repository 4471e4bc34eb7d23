// Weights of a checkpoint as a Hugging Face LLaMA directory, whole or as a base with a PEFT adapter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/comm.hpp"
#include "core/tensor.hpp"

namespace switchyard {

struct ExportRequest {
    std::string checkpoint, directory;
    std::vector<std::string> settings;  // --data.tokens=FILE: where the tokenizer is
    DType dtype = DType::f32;           // or bf16
    std::uint64_t max_shard_bytes = 5'000'000'000;
    bool adapters = false;  // directory/base and directory/adapter; otherwise factors are merged
    bool tokenizer = true;
};

/// Writes `directory`.partial, then renames it: the directory is whole or not there. Files of values are
/// shared out over the ranks, each holding one tensor at a time. Collective; throws UserError on all ranks,
/// and then nothing is left behind.
void export_weights(const Comm& world, const ExportRequest&);

/// "5GB", "200MB", "1GiB", "4096" in bytes. Throws UserError.
std::uint64_t bytes_from_text(const std::string& text, const std::string& option);

}  // namespace switchyard
