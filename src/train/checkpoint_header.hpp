// The header of a checkpoint: step, configuration, data. It is read before the state, to decide what to
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

/// More than run.steps can be. Sums and products of steps and samples up to this size fit into 64 bits.
inline constexpr std::int64_t last_possible_step = 1'000'000'000;

/// Which data a run was trained on, and what its documents begin and end with.
struct DataIdentity {
    std::string tokens, tokenizer;                       // fingerprints in hexadecimal
    std::optional<std::int32_t> begin_token, end_token;  // -1: none; missing in earlier checkpoints
    bool operator==(const DataIdentity&) const = default;
};
DataIdentity identity_of(const TokenFileInfo&);
std::string fingerprint_text(std::uint64_t);
/// A sentence if documents of the model began with another token than those of the file; "" otherwise.
std::string begin_token_warning(const DataIdentity& model, const std::string& checkpoint, const TokenFile&);

/// The attributes that are read before the state.
struct CheckpointHeader {
    std::int64_t step = 0, tokens_seen = 0, next_sample = 0;
    std::string config;  // parse it with parse_config
    std::string dtype;
    DataIdentity data;
    /// From the names of the datasets, to be compared with the configuration before anything is built from
    /// it: the number of layers (-1: not known), and rows and columns of the embedding and of two
    /// weights of the first layer (none: the file lacks them).
    std::int64_t layers = -1;
    Shape embedding, gate, key;
};
/// The header of an open file. Throws UserError if it has another format version, or attributes are missing
/// or wrong.
CheckpointHeader header_of(const CheckpointReader&);
/// Collective. Throws UserError on all ranks if the file is missing, its metadata are damaged, or it has
/// another format version.
CheckpointHeader read_header(const Comm& world, const std::string& path);
/// Writes what read_header() reads, and the provenance.
void write_header(CheckpointWriter&, const CheckpointHeader&, std::uint64_t seed, const Topology&);
/// The configuration stored in a checkpoint, changed by `arguments` ("--section.key=value"). Throws UserError
/// if the file holds another model than its configuration describes.
Config stored_config(const CheckpointHeader&, const std::string& path,
                     const std::vector<std::string>& arguments = {});

}  // namespace switchyard
