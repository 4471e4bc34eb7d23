// Attention's tiles and fragments for tensor cores. A block of four warps reads tiles of 64 rows from shared
// memory and a warp keeps its own rows in registers, as the fragments of mma.m16n8k16: lane 4 g + t holds
// rows g and g + 8, and of every 8 columns 2 t and the next one. A product's result has the layout of the
// next one's left operand, so scores never leave registers. Head sizes are padded with zeros to `padded`, a
// multiple of 16.
#pragma once

#include <bit>

#include "cuda/kernels/attention/parts.cuh"

namespace switchyard::kernels::attention {

inline constexpr int mma_tile = TensorCores::tile, mma_threads = 128, warp_rows = 16;
inline constexpr float log2_e = 1.44269504f;

using Fragment = std::uint32_t[4];
using Sums = float[4];

/// 64 rows in shared memory; a row is an odd number of 16-byte parts long, so that the eight rows of a matrix
/// lie in different banks.
template <int padded>
using Tile = bf16[mma_tile][padded + 8];

__device__ inline int warp_number() {
    return static_cast<int>(threadIdx.x) / cuda::warp_size;
}
__device__ inline int lane_number() {
    return static_cast<int>(threadIdx.x) % cuda::warp_size;
}
/// The row g, and the first of two columns, that this lane holds of a fragment.
__device__ inline int lane_row() {
    return lane_number() / 4;
}
__device__ inline int lane_column() {
    return lane_number() % 4 * 2;
}

/// Starts copying rows [row0, row0 + 64) of a head of size d, with zeros beyond row `end` and column d.
template <int padded>
__device__ void copy_tile(Tile<padded>& to, Head<const bf16> from, int row0, int end, int d) {
    SWITCHYARD_NO_UNROLL
    for (int i = 0; i < mma_tile * padded / 8 / mma_threads; ++i) {
        const int part = static_cast<int>(threadIdx.x) + i * mma_threads, row = part / (padded / 8),
                  column = part % (padded / 8) * 8;
        const bool inside = row0 + row < end && column < d;
        cuda::copy_async(&to[row][column], inside ? from.row(row0 + row) + column : from.data, inside);
    }
}

/// Rows [row0, row0 + 16) of a head as left operands, a fragment for each 16 columns.
template <int count>
__device__ void load_rows(Fragment (&a)[count], Head<const bf16> from, int row0, int end, int d) {
    SWITCHYARD_UNROLL
    for (int c = 0; c < count; ++c) SWITCHYARD_UNROLL
    for (int i = 0; i < 4; ++i) {
        const int row = row0 + lane_row() + i % 2 * 8, column = 16 * c + lane_column() + i / 2 * 8;
        a[c][i] =
            row < end && column < d ? *reinterpret_cast<const std::uint32_t*>(from.row(row) + column) : 0;
    }
}

/// Stores rows g times factors[0] and rows g + 8 times factors[1], for each 8 columns one `sums`.
template <int count>
__device__ void store_rows(const Sums (&sums)[count], Head<bf16> to, int row0, int end, int d,
                           const float (&factors)[2]) {
    SWITCHYARD_UNROLL
    for (int half = 0; half < 2; ++half) {
        const int row = row0 + lane_row() + 8 * half;
        if (row >= end) continue;
        SWITCHYARD_UNROLL
        for (int n = 0; n < count; ++n)
            if (8 * n < d)
                *reinterpret_cast<std::uint32_t*>(to.row(row) + 8 * n + lane_column()) =
                    cuda::pack_bf16(sums[n][2 * half] * factors[half], sums[n][2 * half + 1] * factors[half]);
    }
}

/// The right operands b (16 x 8) of x' for 16 rows of x from `row` and 16 columns from `column`: columns of x
/// are summed over; rows 0 to 7 in b[0], b[1], the others in b[2], b[3].
template <int padded>
__device__ void load_rows_as_columns(Fragment& b, const Tile<padded>& x, int row, int column) {
    const int lane = lane_number();
    cuda::load_matrices<false>(b, &x[row + lane / 16 * 8 + lane % 8][column + lane / 8 % 2 * 8]);
}
/// The right operands of x itself: rows of x are summed over; columns 0 to 7 in b[0], b[1], the others in
/// b[2], b[3].
template <int padded>
__device__ void load_columns(Fragment& b, const Tile<padded>& x, int row, int column) {
    const int lane = lane_number();
    cuda::load_matrices<true>(b, &x[row + lane % 16][column + lane / 16 * 8]);
}
/// d0 += a b for the first eight columns that b holds, d1 for the others.
__device__ inline void mma_pair(Sums& d0, Sums& d1, const Fragment& a, const Fragment& b) {
    const std::uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    cuda::mma(d0, a, b0);
    cuda::mma(d1, a, b1);
}
/// 16 x 16 numbers as a left operand; columns 0 to 7 in x0.
__device__ inline void pack_operand(Fragment& a, const Sums& x0, const Sums& x1) {
    a[0] = cuda::pack_bf16(x0[0], x0[1]);
    a[1] = cuda::pack_bf16(x0[2], x0[3]);
    a[2] = cuda::pack_bf16(x1[0], x1[1]);
    a[3] = cuda::pack_bf16(x1[2], x1[3]);
}

/// The two numbers of a register.
__device__ inline float low_half(std::uint32_t both) {
    return std::bit_cast<float>(both << 16);
}
__device__ inline float high_half(std::uint32_t both) {
    return std::bit_cast<float>(both & 0xFFFF0000u);
}

/// Over the four lanes that hold a row.
__device__ inline float row_sum(float x) {
    x += __shfl_xor_sync(cuda::all_lanes, x, 1);
    return x + __shfl_xor_sync(cuda::all_lanes, x, 2);
}
__device__ inline float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(cuda::all_lanes, x, 1));
    return fmaxf(x, __shfl_xor_sync(cuda::all_lanes, x, 2));
}

/// 2^x, at most 1: a weight from its row's lse, which rounding must not carry above one. NaN stays.
__device__ inline float weight_of_exponent(float x) {
    return cuda::exp2_device(x > 0 ? 0 : x);
}

/// What a block works on: a tile of `rows` rows of one head (of `heads`) of sequence b. Neighbouring blocks
/// share keys and values.
struct MmaPlace {
    std::int64_t b, head;
    int tile;

    __device__ MmaPlace(const Extents& e, std::int64_t heads, int rows, bool last_tile_first) {
        const int tiles = static_cast<int>((e.t + rows - 1) / rows);
        std::int64_t rest = blockIdx.x;
        tile = static_cast<int>(rest % tiles), rest /= tiles;
        if (last_tile_first) tile = tiles - 1 - tile;
        head = rest % heads, b = rest / heads;
    }
};

/// Calls f.operator()<padded>() with the smallest multiple of 16 that holds d and that kernels exist for.
template <class F>
void with_padded(std::int64_t d, F&& f) {
    if (d <= 16) return f.template operator()<16>();
    if (d <= 32) return f.template operator()<32>();
    if (d <= 48) return f.template operator()<48>();
    if (d <= 64) return f.template operator()<64>();
    if (d <= 80) return f.template operator()<80>();
    if (d <= 96) return f.template operator()<96>();
    f.template operator()<128>();
}

template <class T>
cuda::Grid mma_grid(const Extents& e, std::int64_t heads, int rows) {
    return {
        .blocks = e.b * heads * cuda::ceil_div(e.t, rows), .threads = mma_threads, .shared_bytes = sizeof(T)};
}

}  // namespace switchyard::kernels::attention
