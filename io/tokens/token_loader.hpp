// TokenLoader: batches for one dp rank. Sequence g of step t is sample first + t * global_batch + g for every
// dp. The order of samples is a keyed permutation of the file (Feistel network, keyed by seed and epoch), so
// the loader has no state.
#pragma once

#include <cstdint>
#include <vector>

#include "io/tokens/token_file.hpp"

namespace switchyard {

/// A bijection of [0, size), keyed by `key`: a balanced Feistel network on the next even number of bits, with
/// cycle walking. O(1), no tables.
std::int64_t permute(std::int64_t index, std::int64_t size, std::uint64_t key);

/// Host arrays (B, T): targets[b][t] is the token after tokens[b][t]; -1: ignored.
struct Batch {
    std::int64_t num_sequences = 0, seq_len = 0;
    std::vector<std::int32_t> tokens, targets;
    std::vector<std::int32_t>
        first_key;  // position in the sequence where the document of each token starts; empty: not used
};

class TokenLoader {
  public:
    /// Sample i of an epoch covers positions [i T, i T + T] (T inputs and their targets). Throws UserError,
    /// with the numbers, if the file has less than one sample.
    TokenLoader(const TokenFile&, std::int64_t seq_len, std::uint64_t seed, bool mask_documents);

    std::int64_t samples_per_epoch() const;
    /// Samples `first` ... `first + count - 1` of the endless sequence of epochs.
    void training_batch(std::int64_t first, std::int64_t count, Batch&) const;

    /// The validation set in order: sequences of T targets, the last one padded with end tokens and ignored
    /// targets. Each token but the very first is a target exactly once for every seq_len, which gives
    /// num_validation_tokens - 1 targets.
    std::int64_t num_validation_sequences() const;
    std::int64_t num_validation_targets() const;
    /// Beyond the end all targets are ignored.
    void validation_batch(std::int64_t first, std::int64_t count, Batch&) const;

  private:
    void start_batch(std::int64_t count, Batch&) const;
    void fill_sequence(const std::vector<std::int32_t>& ids, std::int64_t b, Batch&) const;

    const TokenFile& file_;
    std::int64_t seq_len_;
    std::uint64_t seed_;
    bool mask_documents_;
};

}  // namespace switchyard
