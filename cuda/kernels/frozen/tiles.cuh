// The stored words of frozen weights on the device, and the kernel that forms effective weights in tiles
// without tensor cores: a thread owns 4 rows x 8 columns, a block 16 threads along the columns and up to 16
// along the rows. Slots are added in order with fma, so an element's bits do not depend on its place in the
// weight or the launch.
#pragma once

#include <bit>
#include <cmath>

#include "cuda/kernels/chunks.cuh"
#include "kernels/frozen_weight.hpp"

namespace switchyard::kernels {

/// W: the type of `hi`; `lo` only if W is bf16.
template <class W>
struct Words {
    W* hi;
    std::int16_t* lo;
};
template <class W>
Words<W> words_of(const FrozenWeight& w) {
    return {w.hi.data<W>(), w.lo.data<std::int16_t>()};
}

/// The words of n neighbouring elements.
template <class W, int n>
struct Piece {
    Chunk<W, n> hi;
    Chunk<std::int16_t, n> lo;

    __device__ Wide<W> value(int i) const {
        if constexpr (std::is_same_v<W, bf16>) {
            const std::uint32_t high = static_cast<std::uint32_t>(hi.x[i].bits) << 16;
            return std::bit_cast<float>(high +
                                        static_cast<std::uint32_t>(static_cast<std::int32_t>(lo.x[i])));
        } else {
            return hi.x[i];
        }
    }
    __device__ void set(int i, Wide<W> value) {
        if constexpr (std::is_same_v<W, bf16>) {
            const auto bits = std::bit_cast<std::uint32_t>(value);
            hi.x[i].bits = static_cast<std::uint16_t>((bits + 0x8000u) >> 16);
            lo.x[i] = static_cast<std::int16_t>(
                static_cast<std::uint16_t>(bits));  // bits - (hi << 16), modulo 2^16
        } else {
            hi.x[i] = value;
        }
    }
};

/// The first `count` elements from `at` on (none if negative). `vectors`: rows begin at multiples of 16
/// bytes.
template <int n, class W>
__device__ Piece<W, n> load_piece(const Words<W>& w, std::int64_t at, std::int64_t count, bool vectors) {
    Piece<W, n> piece{};
    piece.hi = load_part<n>(w.hi + at, count, vectors);
    if constexpr (std::is_same_v<W, bf16>) piece.lo = load_part<n>(w.lo + at, count, vectors);
    return piece;
}
template <int n, class W>
__device__ void store_piece(const Words<W>& w, std::int64_t at, const Piece<W, n>& piece, std::int64_t count,
                            bool vectors) {
    store_part(w.hi + at, piece.hi, count, vectors);
    if constexpr (std::is_same_v<W, bf16>) store_part(w.lo + at, piece.lo, count, vectors);
}

/// A vector in f32 or f64; ones if it is empty.
struct Entries {
    const void* values;
    bool f64;

    explicit Entries(Tensor t) : values(t.empty() ? nullptr : t.raw()), f64(t.dtype() == DType::f64) {}
    __device__ double operator[](std::int64_t i) const {
        if (!values) return 1;
        return f64 ? static_cast<const double*>(values)[i] : double{static_cast<const float*>(values)[i]};
    }
};

/// An EffectiveWeight with factors of type F. Rows of the weight begin at row0 of `b` and row_scale.
template <class F>
struct Effect {
    const F *a, *b;  // (slots, n), (slots, b_width)
    std::int64_t slots = 0, b_width = 0, row0;
    double scale, base;
    Entries gate, row_scale;

    explicit Effect(const EffectiveWeight& e)
        : a(e.factors.a.data<const F>()),
          b(e.factors.b_transposed.data<const F>()),
          row0(e.factors.row0),
          scale(e.factors.scale),
          base(e.base),
          gate(e.gate),
          row_scale(e.row_scale) {
        if (e.factors.a.empty()) return;
        slots = e.factors.a.dim(0);
        b_width = e.factors.b_transposed.dim(1);
    }
};

namespace tiles {
constexpr int thread_rows = 4, thread_columns = 8, across = 16, most_down = 16;
constexpr int columns = across * thread_columns, most_rows = most_down * thread_rows;
constexpr int slab = 16;  // slots whose factors are in shared memory at a time

template <class Sum>
struct Memory {
    Sum a[slab][columns], b[slab][most_rows];
};
}  // namespace tiles

/// to (m, n) <- the effective weight of `from`, in arithmetic of type Sum. `to` may be `from`.
template <class W, class F, class Sum>
static __global__ void __launch_bounds__(tiles::across* tiles::most_down)
    form_tiles(Words<W> from, Words<W> to, Effect<F> e, std::int64_t m, std::int64_t n, bool vectors) {
    using namespace tiles;
    auto& shared = cuda::block_memory<Memory<Sum>>();
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const int tile_rows = threads / across * thread_rows;
    const std::int64_t across_weight = cuda::ceil_div(n, columns);
    const std::int64_t top = blockIdx.x / across_weight * tile_rows,
                       left = blockIdx.x % across_weight * columns;
    const int my_row = thread / across * thread_rows, my_column = thread % across * thread_columns;
    const std::int64_t row = top + my_row, column = left + my_column;
    const auto columns_of = [&](int r) { return row + r < m ? n - column : 0; };

    Piece<W, thread_columns> value[thread_rows];  // on its way while the product is formed
    for (int r = 0; r < thread_rows; ++r)
        value[r] = load_piece<thread_columns>(from, (row + r) * n + column, columns_of(r), vectors);
    Sum sum[thread_rows][thread_columns] = {};
    for (std::int64_t first = 0; first < e.slots; first += slab) {
        const int slots = static_cast<int>(std::min<std::int64_t>(slab, e.slots - first));
        __syncthreads();  // the slab before is no longer read
        for (int i = thread; i < slots * columns; i += threads) {
            const std::int64_t slot = first + i / columns, j = left + i % columns;
            shared.a[i / columns][i % columns] = j < n ? narrow<Sum>(e.a[slot * n + j]) : Sum(0);
        }
        for (int i = thread; i < slots * tile_rows; i += threads) {
            const std::int64_t slot = first + i / tile_rows, j = top + i % tile_rows;
            shared.b[i / tile_rows][i % tile_rows] =
                j < m ? narrow<Sum>(e.b[slot * e.b_width + e.row0 + j]) * static_cast<Sum>(e.gate[slot])
                      : Sum(0);
        }
        __syncthreads();
        for (int s = 0; s < slots; ++s) {
            const auto a = load_chunk<thread_columns>(&shared.a[s][my_column]);
            const auto b = load_chunk<thread_rows>(&shared.b[s][my_row]);
            for (int r = 0; r < thread_rows; ++r)
                for (int c = 0; c < thread_columns; ++c) sum[r][c] = std::fma(b.x[r], a.x[c], sum[r][c]);
        }
    }
    const auto scale = static_cast<Sum>(e.scale), base = static_cast<Sum>(e.base);
    for (int r = 0; r < thread_rows; ++r) {
        if (row + r >= m) return;
        const auto row_scale = static_cast<Sum>(e.row_scale[e.row0 + row + r]);
        for (int c = 0; c < thread_columns; ++c) {
            const Sum before = base * static_cast<Sum>(value[r].value(c));
            value[r].set(c, static_cast<Wide<W>>(row_scale * std::fma(scale, sum[r][c], before)));
        }
        store_piece(to, (row + r) * n + column, value[r], columns_of(r), vectors);
    }
}

/// `vectors`: from and to begin at multiples of 16 bytes.
template <class W, class F, class Sum>
void launch_form_tiles(Words<W> from, Words<W> to, const EffectiveWeight& e, std::int64_t m, std::int64_t n,
                       bool vectors) {
    const std::int64_t needed = cuda::ceil_div(cuda::ceil_div(m, tiles::thread_rows), 2) * 2;
    const int down = static_cast<int>(std::min<std::int64_t>(needed, tiles::most_down));
    const std::int64_t blocks =
        cuda::ceil_div(m, down * tiles::thread_rows) * cuda::ceil_div(n, tiles::columns);
    cuda::launch({blocks, tiles::across * down, sizeof(tiles::Memory<Sum>)}, form_tiles<W, F, Sum>, from, to,
                 Effect<F>(e), m, n, vectors && n % tiles::thread_columns == 0);
}

}  // namespace switchyard::kernels
