// Products of tiles for attention without tensor cores. A block of 8 x 8 threads holds a tile of 32 x 32
// scores, 4 x 4 a thread: rows y + 8 i and columns x + 8 j of thread (y, x), so that a warp reads different
// banks of shared memory. Head sizes are cut into chunks that fit; a block makes one chunk of the results and
// computes the scores of its tile from all chunks.
#pragma once

#include "cuda/kernels/attention/parts.cuh"

namespace switchyard::kernels::attention {

inline constexpr int simt_tile = Simt::tile, side = 8, micro = simt_tile / side, simt_threads = side * side;

/// Columns of a chunk: 256 bytes.
template <class A>
inline constexpr int chunk_width = 256 / sizeof(A);

/// Rows of one chunk; the pitch is odd, so that the elements of a column lie in different banks.
template <class A>
using Chunk = A[simt_tile][chunk_width<A> + 1];
template <class A>
using Scores = A[simt_tile][simt_tile + 1];

/// The chunk `index` of a head size.
template <class A>
struct Columns {
    int begin, count;
    __device__ Columns(int d, int index) : begin(index * chunk_width<A>), count(d - begin) {
        if (count > chunk_width<A>) count = chunk_width<A>;
    }
};

__device__ inline int thread_row() {
    return static_cast<int>(threadIdx.x) / side;
}
__device__ inline int thread_column() {
    return static_cast<int>(threadIdx.x) % side;
}

/// to = rows [row0, row0 + tile) of a head; zeros beyond `end` and up to the next multiple of 8 columns.
template <class A, class T>
__device__ void load_chunk(Chunk<A>& to, Head<const T> from, int row0, int end, const Columns<A>& c) {
    const int width = (c.count + side - 1) / side * side;
    for (int i = static_cast<int>(threadIdx.x); i < simt_tile * width; i += simt_threads) {
        const int row = i / width, column = i % width;
        const bool inside = row0 + row < end && column < c.count;
        to[row][column] = inside ? wide(from.row(row0 + row)[c.begin + column]) : A(0);
    }
}

/// s += a b': of each row of a with each of b, over `count` columns.
template <class A>
__device__ void add_dots(A (&s)[micro][micro], const Chunk<A>& a, const Chunk<A>& b, int count) {
    for (int c = 0; c < count; ++c) {
        A x[micro], y[micro];
        for (int i = 0; i < micro; ++i) x[i] = a[thread_row() + side * i][c];
        for (int j = 0; j < micro; ++j) y[j] = b[thread_column() + side * j][c];
        for (int i = 0; i < micro; ++i)
            for (int j = 0; j < micro; ++j) s[i][j] += x[i] * y[j];
    }
}

/// One thread's part of a block's results: rows y + 8 i, columns x + 8 j of the chunk.
template <class A>
struct Result {
    A sum[micro][chunk_width<A> / side] = {};

    /// += weights x, over the first `count` rows of x.
    __device__ void add_product(const Scores<A>& weights, const Chunk<A>& x, int count, int columns) {
        for (int r = 0; r < count; ++r) {
            A w[micro];
            for (int i = 0; i < micro; ++i) w[i] = weights[thread_row() + side * i][r];
            for (int j = 0; j < chunk_width<A> / side; ++j)
                if (side * j < columns) {
                    const A value = x[r][thread_column() + side * j];
                    for (int i = 0; i < micro; ++i) sum[i][j] += w[i] * value;
                }
        }
    }
    /// Multiplies row r by factors[r].
    __device__ void scale_rows(const A (&factors)[simt_tile]) {
        for (int i = 0; i < micro; ++i)
            for (int j = 0; j < chunk_width<A> / side; ++j) sum[i][j] *= factors[thread_row() + side * i];
    }
    template <class T>
    __device__ void store(Head<T> to, int row0, int end, const Columns<A>& c) const {
        for (int i = 0; i < micro; ++i) {
            const int row = row0 + thread_row() + side * i;
            if (row >= end) continue;
            for (int j = 0; j < chunk_width<A> / side; ++j)
                if (const int column = thread_column() + side * j; column < c.count)
                    to.row(row)[c.begin + column] = narrow<T>(sum[i][j]);
        }
    }
};

/// What a block works on: one chunk of one tile of one head (of `heads`) of sequence b. Tiles with the most
/// work come first.
struct Place {
    std::int64_t b, head;
    int tile, chunk, chunks, tiles;

    __device__ Place(const Extents& e, std::int64_t heads, int width, bool last_tile_first)
        : chunks(static_cast<int>((e.d + width - 1) / width)),
          tiles(static_cast<int>((e.t + simt_tile - 1) / simt_tile)) {
        std::int64_t rest = blockIdx.x;
        chunk = static_cast<int>(rest % chunks), rest /= chunks;
        tile = static_cast<int>(rest % tiles), rest /= tiles;
        if (last_tile_first) tile = tiles - 1 - tile;
        head = rest % heads, b = rest / heads;
    }
};

template <class T>
cuda::Grid simt_grid(const Extents& e, std::int64_t heads, std::size_t shared_bytes) {
    return {
        .blocks = e.b * heads * cuda::ceil_div(e.t, simt_tile) * cuda::ceil_div(e.d, chunk_width<Wide<T>>),
        .threads = simt_threads,
        .shared_bytes = shared_bytes};
}

}  // namespace switchyard::kernels::attention
