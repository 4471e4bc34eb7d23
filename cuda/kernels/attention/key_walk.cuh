// The queries of a block and its walk over the keys that they see, for the forward pass and d_q on tensor
// cores: keys and values come tile by tile, by copies in the background, one tile ahead of the tile in use.
#pragma once

#include "cuda/kernels/attention/fragments.cuh"

namespace switchyard::kernels::attention {

/// The queries of a warp: `sets` times 16 from row0 of one sequence, and the keys that they see.
template <int sets>
struct QueryRows {
    int row0, tokens;
    int highest_first_key;          // at least theirs
    const std::int32_t* first_key;  // theirs, in shared memory

    __device__ QueryRows(const Visible& visible, std::int64_t b, int block_row0, int tokens,
                         const std::int32_t* block_first_keys)
        : row0(block_row0 + warp_number() * warp_rows * sets),
          tokens(tokens),
          highest_first_key(row0 < tokens ? visible.bounds_of(b, row0 / mma_tile).highest : 0),
          first_key(block_first_keys + row0 - block_row0) {}

    /// The row g or g + 8 of set m.
    __device__ int row(int m, int half) const { return row0 + warp_rows * m + lane_row() + 8 * half; }
    __device__ int last_row() const {
        const int end = row0 + warp_rows * sets;
        return (end < tokens ? end : tokens) - 1;
    }
    /// False if no query of set m sees a key from `key` on.
    __device__ bool reaches(int m, int key) const {
        return row0 + warp_rows * m < tokens && key < row0 + warp_rows * (m + 1);
    }
    /// True if all see all keys [key0, key0 + 64).
    __device__ bool sees_all(int key0) const {
        return key0 + mma_tile - 1 <= row0 && key0 >= highest_first_key;
    }
    __device__ bool sees(int m, int half, int key) const {
        const int t = row(m, half);
        return key <= t && key >= first_key[t - row0];
    }
};

/// first_keys = those of the block's queries; of the first `rows` threads, one each.
__device__ inline void load_first_keys(std::int32_t* first_keys, int rows, const Visible& visible,
                                       std::int64_t b, int row0, int tokens) {
    const int i = static_cast<int>(threadIdx.x);
    if (i < rows) first_keys[i] = row0 + i < tokens ? visible.first_key(b, row0 + i) : 0;
}

/// The key tiles [first, last] that a block of `rows` queries from row0 sees.
struct KeyTiles {
    int first, last;
    __device__ KeyTiles(const Visible& visible, std::int64_t b, int row0, int rows, int tokens) {
        const int end = row0 + rows < tokens ? row0 + rows : tokens;
        last = (end - 1) / mma_tile;
        first = visible.bounds_of(b, row0 / mma_tile).lowest / mma_tile;
        for (int tile = row0 / mma_tile + 1; tile <= last; ++tile) {
            const int other = visible.bounds_of(b, tile).lowest / mma_tile;
            if (other < first) first = other;
        }
    }
};

/// Sets of 16 queries of a warp: two share what is read from shared memory, as far as registers suffice.
constexpr int sets_of(int padded) {
    return padded <= 64 ? 2 : 1;
}

/// Of a block that owns queries: keys and values of the tile in use and of the next one.
template <int padded, int sets>
struct KeyTilesShared {
    Tile<padded> k[2], v[2];
    std::int32_t first_keys[mma_tile * sets];  // of the block's queries
};

/// The walk of a block.
template <int padded, int sets>
struct KeyWalk {
    static constexpr int block_rows = mma_tile * sets;
    KeyTilesShared<padded, sets>& shared;
    Head<const bf16> k, v;
    int tokens, d, row0;  // row0: the block's first query
    KeyTiles tiles;

    /// Starts copying the first tile.
    __device__ KeyWalk(KeyTilesShared<padded, sets>& shared, const Inputs<bf16>& a, const MmaPlace& p)
        : shared(shared),
          k(head_of(a.k, a.e, a.e.k, p.b, p.head / a.e.group())),
          v(head_of(a.v, a.e, a.e.k, p.b, p.head / a.e.group())),
          tokens(static_cast<int>(a.e.t)),
          d(static_cast<int>(a.e.d)),
          row0(p.tile * block_rows),
          tiles(a.visible, p.b, row0, block_rows, tokens) {
        copy(tiles.first);
        load_first_keys(shared.first_keys, block_rows, a.visible, p.b, row0, tokens);
    }
    __device__ QueryRows<sets> rows(const Inputs<bf16>& a, const MmaPlace& p) const {
        return {a.visible, p.b, row0, tokens, shared.first_keys};
    }
    /// warp.add_tile<masked>(keys, values, first key) for each tile from which a row of the warp sees a key.
    template <class Warp>
    __device__ void run(Warp& warp) const {
        for (int tile = tiles.first; tile <= tiles.last; ++tile) {
            cuda::wait_copies<0>();
            __syncthreads();  // all copies of this tile are there, and the tile before is no longer read
            if (tile < tiles.last) copy(tile + 1);
            const int key0 = tile * mma_tile;
            if (key0 > warp.rows.last_row()) continue;
            if (warp.rows.sees_all(key0))
                warp.template add_tile<false>(shared.k[tile % 2], shared.v[tile % 2], key0);
            else
                warp.template add_tile<true>(shared.k[tile % 2], shared.v[tile % 2], key0);
        }
    }

  private:
    __device__ void copy(int tile) const {
        copy_tile<padded>(shared.k[tile % 2], k, tile * mma_tile, tokens, d);
        copy_tile<padded>(shared.v[tile % 2], v, tile * mma_tile, tokens, d);
        cuda::commit_copies();
    }
};

}  // namespace switchyard::kernels::attention
