// What a checkpoint says about itself: step, configuration, data. Read before the state, to decide what to
// build.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint/checkpoint_file.hpp"
#include "io/tokens/token_file.hpp"
#include "methods/registry.hpp"

namespace switchyard {

/// Beyond what run.steps can be, so that sums and products of steps and samples fit into 64 bits.
inline constexpr std::int64_t last_possible_step = 1'000'000'000;

/// Which data a run was trained on, and what its documents begin and end with.
struct DataIdentity {
    std::string tokens, tokenizer;                       // fingerprints in hexadecimal
    std::optional<std::int32_t> begin_token, end_token;  // -1: none; not said by checkpoints of before
    bool operator==(const DataIdentity&) const = default;
};
DataIdentity identity_of(const TokenFileInfo&);
std::string fingerprint_text(std::uint64_t);
/// "" or, where documents of a model began with another token than those of the file, a sentence that says
/// so.
std::string begin_token_warning(const DataIdentity& model, const std::string& checkpoint, const TokenFile&);

/// The attributes that are read before the state.
struct CheckpointHeader {
    std::int64_t step = 0, tokens_seen = 0, next_sample = 0;
    std::string config;  // text; parse with parse_config
    std::string dtype;
    DataIdentity data;
    /// What the names of the datasets tell, to be compared with the configuration before anything is built
    /// from it: layers, -1 where that is not known, and the embedding's rows and columns.
    std::int64_t layers = -1;
    Shape embedding;
};
/// Collective. Throws UserError on all ranks: missing, damaged metadata, another format version.
CheckpointHeader read_header(const Comm& world, const std::string& path);
/// Writes what read_header() reads, and provenance. Collective over the topology's world.
void write_header(CheckpointWriter&, const CheckpointHeader&, std::uint64_t seed, const Topology&);
/// The configuration stored in a checkpoint, with `arguments` ("--section.key=value") on top of it. Throws
/// UserError where the file holds another model than it says.
Config stored_config(const CheckpointHeader&, const std::string& path,
                     const std::vector<std::string>& arguments = {});

}  // namespace switchyard
