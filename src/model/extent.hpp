// Extent: one dimension of a weight that is cut over tp. Blocks are padded to equal sizes, so that every
// rank's kernels see one shape. Padding is zero and never enters a file, norm, softmax, initial value or
// bank.
#pragma once

#include <algorithm>
#include <cstdint>

namespace switchyard {

struct Extent {
    std::int64_t size = 0;    // of the whole dimension
    std::int64_t begin = 0;   // global position of the local block
    std::int64_t count = 0;   // valid local elements
    std::int64_t padded = 0;  // allocated local elements
};

inline Extent whole(std::int64_t size) {
    return {size, 0, size, size};
}

/// Blocks of ceil(size / parts), rounded up to a multiple of 16.
inline Extent padded_block(std::int64_t size, int parts, int part) {
    const std::int64_t block = ((size + parts - 1) / parts + 15) / 16 * 16;
    const std::int64_t begin = std::min(size, part * block);
    return {size, begin, std::min(size, begin + block) - begin, block};
}

/// The rows of a local block that one of `parts` ranks keeps (parallel.shard_frozen). All slices have equal
/// sizes; the last ones may reach beyond the block.
struct RowSlice {
    std::int64_t begin = 0;  // first row within the local block
    std::int64_t kept = 0;   // rows with memory, the same for every part
    std::int64_t local = 0;  // rows among them that lie in the local block, padding included
    std::int64_t valid = 0;  // rows among them that lie in the whole dimension
};

inline RowSlice row_slice(const Extent& rows, int parts, int part) {
    const std::int64_t kept = (rows.padded + parts - 1) / parts, begin = part * kept;
    return {begin, kept, std::clamp<std::int64_t>(rows.padded - begin, 0, kept),
            std::clamp<std::int64_t>(rows.count - begin, 0, kept)};
}

/// Blocks of whole groups (attention heads); parts divides groups.
inline Extent even_block(std::int64_t size, int parts, int part) {
    return {size, size / parts * part, size / parts, size / parts};
}

}  // namespace switchyard
