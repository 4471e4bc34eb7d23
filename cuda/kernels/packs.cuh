// Packs: neighbouring numbers that a thread loads and stores at once, and the division of rows of packs among
// blocks. Where an address or a row length does not allow wide accesses, packs have one number, so that the
// threads of a warp still touch neighbours.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cuda/kernels/numbers.cuh"

namespace switchyard::kernels {

/// n numbers of at most 16 bytes together; n is a power of two.
template <class T, int n>
struct alignas(n * sizeof(T)) Pack {
    T x[n];
};

/// Numbers in a pack when the widest of these types is accessed by 16 bytes.
template <class... T>
constexpr int pack_size = 16 / std::max({static_cast<int>(sizeof(T))...});

/// Loads a pack, of which the first `valid` numbers exist; the others are zero.
template <int n, class T>
__device__ inline Pack<T, n> load_pack(const T* from, int valid) {
    if (valid >= n) return *reinterpret_cast<const Pack<T, n>*>(from);
    Pack<T, n> pack;
    for (int i = 0; i < n; ++i) pack.x[i] = i < valid ? from[i] : T{};
    return pack;
}

/// Stores the first `valid` numbers of a pack.
template <int n, class T>
__device__ inline void store_pack(const Pack<T, n>& pack, T* to, int valid) {
    if (valid >= n) {
        *reinterpret_cast<Pack<T, n>*>(to) = pack;
        return;
    }
    for (int i = 0; i < n; ++i)
        if (i < valid) to[i] = pack.x[i];
}

/// The type To of each number of a pack.
template <class To, class From, int n>
__device__ inline Pack<To, n> narrow_pack(const Pack<From, n>& from) {
    Pack<To, n> to;
    for (int i = 0; i < n; ++i) to.x[i] = narrow<To>(from.x[i]);
    return to;
}

/// How blocks divide rows of `width` packs: a block takes several whole rows or a piece of one row.
struct Tiles {
    std::int64_t width = 0, rows = 0;
    std::int32_t piece = 0, pieces = 1;  // packs of a block along a row; blocks along a row
    std::int32_t rows_per_block = 1;

    Tiles() = default;
    /// No block gets more than `most` packs.
    Tiles(std::int64_t num_rows, std::int64_t packs_of_row, std::int64_t most)
        : width(packs_of_row), rows(num_rows) {
        pieces = static_cast<std::int32_t>(std::max<std::int64_t>(1, cuda::ceil_div(width, most)));
        piece = static_cast<std::int32_t>(cuda::ceil_div(width, pieces));
        if (pieces == 1 && width > 0)
            rows_per_block = static_cast<std::int32_t>(
                std::clamp<std::int64_t>(most / width, 1, std::max<std::int64_t>(rows, 1)));
    }
    std::int64_t blocks() const { return width == 0 ? 0 : cuda::ceil_div(rows, rows_per_block) * pieces; }
    /// The largest number of packs that a block gets.
    std::int64_t packs_of_block() const { return blocks() == 0 ? 0 : std::int64_t{piece} * rows_per_block; }

    /// f(row, pack of the row) for the packs of one block, which are neighbours for the threads of a warp.
    template <class F>
    __device__ void for_packs(unsigned block, const F& f) const {
        const unsigned group = block / static_cast<unsigned>(pieces),
                       along = block - group * static_cast<unsigned>(pieces);
        const std::int64_t first_row = std::int64_t{group} * rows_per_block,
                           first = std::int64_t{along} * piece;
        const int across = static_cast<int>(std::min(std::int64_t{piece}, width - first));
        const int down = static_cast<int>(std::min(std::int64_t{rows_per_block}, rows - first_row));
        for (int i = static_cast<int>(threadIdx.x); i < across * down; i += static_cast<int>(blockDim.x)) {
            const int row = i / across;
            f(first_row + row, first + (i - row * across));
        }
    }
};

}  // namespace switchyard::kernels
