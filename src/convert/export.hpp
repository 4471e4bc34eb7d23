// Writes the weights of a checkpoint as a Hugging Face LLaMA directory, whole or as a base with a PEFT
// adapter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/comm.hpp"
#include "core/tensor.hpp"

namespace switchyard {

struct ExportRequest {
    std::string checkpoint, directory;
    std::vector<std::string> settings;  // --data.tokens=FILE, the file that has the tokenizer
    DType dtype = DType::f32;           // f32 or bf16
    std::uint64_t max_shard_bytes = 5'000'000'000;
    bool adapters = false;  // write directory/base and directory/adapter; otherwise factors are merged
    bool tokenizer = true;
};

/// Writes `directory`.partial and renames it, so the directory is complete or absent. The files of values are
/// divided among the ranks, each of which holds one tensor at a time. Collective. Throws UserError on all
/// ranks and then leaves nothing behind.
void export_weights(const Comm& world, const ExportRequest&);

/// The number of bytes in "5GB", "200MB", "1GiB" or "4096". Throws UserError.
std::uint64_t bytes_from_text(const std::string& text, const std::string& option);

}  // namespace switchyard
