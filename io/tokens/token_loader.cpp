// The keyed permutation of samples, and the layout of batches. Everything depends on (seed, sample index)
// alone.
#include "io/tokens/token_loader.hpp"

#include <algorithm>
#include <bit>

#include "core/error.hpp"
#include "core/rng.hpp"

namespace switchyard {
namespace {

constexpr int num_rounds = 8;
constexpr std::uint64_t golden = 0x9E3779B97F4A7C15ull;

/// Balanced Feistel network on 2 * half_bits bits (Luby and Rackoff 1988) with the SplitMix64 finaliser as
/// its round function.
std::uint64_t feistel(std::uint64_t x, int half_bits, std::uint64_t key) {
    const std::uint64_t mask = (std::uint64_t{1} << half_bits) - 1;
    std::uint64_t left = x >> half_bits, right = x & mask;
    for (int round = 0; round < num_rounds; ++round) {
        const std::uint64_t round_key = mix64(key + static_cast<std::uint64_t>(round + 1) * golden);
        const std::uint64_t next = left ^ (mix64(right * golden + round_key) & mask);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

}  // namespace

std::int64_t permute(std::int64_t index, std::int64_t size, std::uint64_t key) {
    internal_check(index >= 0 && index < size, "index {} of {} samples", index, size);
    const int bits = std::max<int>(std::bit_width(static_cast<std::uint64_t>(size - 1)), 1);
    const int half_bits = (bits + 1) / 2;
    // Cycle walking. The domain has fewer than four times `size` elements, so four steps are enough on
    // average.
    std::uint64_t x = static_cast<std::uint64_t>(index);
    do {
        x = feistel(x, half_bits, key);
    } while (x >= static_cast<std::uint64_t>(size));
    return static_cast<std::int64_t>(x);
}

TokenLoader::TokenLoader(const TokenFile& file, std::int64_t seq_len, std::uint64_t seed, bool mask_documents)
    : file_(file), seq_len_(seq_len), seed_(seed), mask_documents_(mask_documents) {
    require(seq_len > 0, "data.seq_len = {} (it is the number of tokens in a sequence); choose 1 or more",
            seq_len);
    require(samples_per_epoch() > 0,
            "`{}` has {} training tokens, but one sample takes data.seq_len + 1 = {} (nothing to train on); "
            "use more text or a smaller data.seq_len",
            file.path(), file.info().num_tokens, seq_len + 1);
}

std::int64_t TokenLoader::samples_per_epoch() const {
    return std::max<std::int64_t>(file_.info().num_tokens - 1, 0) / seq_len_;
}

void TokenLoader::training_batch(std::int64_t first, std::int64_t count, Batch& batch) const {
    internal_check(first >= 0 && count >= 0, "samples {} + {}", first, count);
    start_batch(count, batch);
    const std::int64_t epoch_size = samples_per_epoch();
    std::vector<std::int32_t> ids(static_cast<std::size_t>(seq_len_) + 1);
    for (std::int64_t b = 0; b < count; ++b) {
        const std::int64_t epoch = (first + b) / epoch_size, index = (first + b) % epoch_size;
        const std::uint64_t key =
            mix64(stream_key(seed_, "sample order") + static_cast<std::uint64_t>(epoch) * golden);
        file_.read(TokenSplit::training, permute(index, epoch_size, key) * seq_len_, seq_len_ + 1,
                   ids.data());
        fill_sequence(ids, b, batch);
    }
}

std::int64_t TokenLoader::num_validation_targets() const {
    return std::max<std::int64_t>(file_.info().num_validation_tokens - 1, 0);
}

std::int64_t TokenLoader::num_validation_sequences() const {
    return (num_validation_targets() + seq_len_ - 1) / seq_len_;
}

void TokenLoader::validation_batch(std::int64_t first, std::int64_t count, Batch& batch) const {
    internal_check(first >= 0 && count >= 0, "validation sequences {} + {}", first, count);
    start_batch(count, batch);
    std::vector<std::int32_t> ids;
    for (std::int64_t b = 0; b < count; ++b) {
        const std::int64_t begin = (first + b) * seq_len_;
        const std::int64_t available = file_.info().num_validation_tokens - begin;
        ids.assign(static_cast<std::size_t>(std::clamp<std::int64_t>(available, 0, seq_len_ + 1)), 0);
        if (!ids.empty())
            file_.read(TokenSplit::validation, begin, static_cast<std::int64_t>(ids.size()), ids.data());
        fill_sequence(ids, b, batch);
    }
}

void TokenLoader::start_batch(std::int64_t count, Batch& batch) const {
    batch.num_sequences = count;
    batch.seq_len = seq_len_;
    const auto size = static_cast<std::size_t>(count * seq_len_);
    batch.tokens.assign(size, file_.info().end_token);
    batch.targets.assign(size, -1);
    batch.first_key.assign(mask_documents_ ? size : 0, 0);
}

/// Fills sequence b from up to T + 1 ids; missing ones become end tokens and ignored targets.
void TokenLoader::fill_sequence(const std::vector<std::int32_t>& ids, std::int64_t b, Batch& batch) const {
    const std::int64_t offset = b * seq_len_, size = static_cast<std::int64_t>(ids.size());
    std::copy_n(ids.begin(), std::min(size, seq_len_), batch.tokens.begin() + offset);
    if (size > 1) std::copy(ids.begin() + 1, ids.end(), batch.targets.begin() + offset);
    if (!mask_documents_) return;
    // A document starts after an end token and nowhere else. A document that began before the sequence starts
    // at its edge.
    std::int32_t start = 0;
    for (std::int64_t t = 0; t < seq_len_; ++t) {
        batch.first_key[static_cast<std::size_t>(offset + t)] = start;
        if (batch.tokens[static_cast<std::size_t>(offset + t)] == file_.info().end_token) {
            start = static_cast<std::int32_t>(t + 1);
        }
    }
}

}  // namespace switchyard
