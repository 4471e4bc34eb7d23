// merged = row_scale (base W + scale B diag(gate) A) by tensor cores. A block forms 128 x 128 elements: 8
// warps of 32 x 64 each, slots in slabs of 16 through shared memory; the next slab is loaded while one is
// multiplied. Words are joined where they are used, so a weight costs 4 bytes read and 2 written beside the
// factors. Every element adds its slots in the same order, so its bits do not depend on its place in the
// weight.
#include "cuda/kernels/frozen/merge.cuh"
#include "cuda/kernels/frozen/tiles.cuh"

namespace switchyard::kernels {
namespace {

using cuda::warp_size;

constexpr int tile = 128, slab = 16, block = 256, chunk = 8;
constexpr int warp_rows = 32, warp_columns = 64, group_columns = 32;
constexpr int row_tiles = warp_rows / 16, groups = warp_columns / group_columns,
              tiles_of_group = group_columns / 8;
static_assert(slab * tile == block * chunk);  // a thread moves one chunk of each factor
constexpr int pitch = tile + chunk;           // rows of a slab begin in different banks

struct MergeMemory {
    bf16 b[slab][pitch];
    /// Columns of a group are permuted: column 8 q + 2 j + e of a group is column 2 q + e of product j, so
    /// that a thread's results of the four products of a group are eight neighbouring columns of the weight.
    bf16 a[slab][pitch];
};

/// A thread's part of a slab, between global and shared memory.
struct Fetched {
    Chunk<bf16, chunk> a, b;
};
/// Where in the slab it lies.
__device__ int my_slot() {
    return static_cast<int>(threadIdx.x) / (tile / chunk);
}
__device__ int my_place() {
    return static_cast<int>(threadIdx.x) % (tile / chunk) * chunk;
}

struct Merge {
    Words<bf16> w;
    Effect<bf16> e;
    bf16* merged;
    std::int64_t m, n;
    bool vectors, b_vectors;  // rows of w, merged and a, and of b, begin at multiples of 16 bytes
};

__device__ Fetched fetch(const Merge& g, std::int64_t top, std::int64_t left, std::int64_t first_slot) {
    const std::int64_t slot = first_slot + my_slot(), row = top + my_place(), column = left + my_place();
    const bool inside = slot < g.e.slots;
    Fetched f;
    f.a = load_part<chunk>(g.e.a + slot * g.n + column, inside ? g.n - column : 0, g.vectors);
    f.b = load_part<chunk>(g.e.b + slot * g.e.b_width + g.e.row0 + row, inside ? g.m - row : 0, g.b_vectors);
    if (!g.e.gate.values || !inside) return f;
    const auto factor = static_cast<float>(g.e.gate[slot]);
    for (bf16& x : f.b.x) x = narrow<bf16>(factor * wide(x));
    return f;
}

__device__ void keep(const Fetched& f, MergeMemory& shared) {
    const int slot = my_slot(), at = my_place();
    store_chunk(&shared.b[slot][at], f.b);
    const int group = at / group_columns * group_columns, q = at % group_columns / chunk;
    for (int j = 0; j < tiles_of_group; ++j)
        store_chunk(&shared.a[slot][group + 8 * j + 2 * q], Chunk<bf16, 2>{{f.a.x[2 * j], f.a.x[2 * j + 1]}});
}

/// Results of a warp, as mma lays them out.
using Sums = float[row_tiles][groups * tiles_of_group][4];

/// sums += the slab's slots. The warp's part of the tile begins at (row, column); parts
/// beyond `rows` and `columns` of it lie outside the weight.
__device__ void multiply(const MergeMemory& shared, int row, int column, std::int64_t rows,
                         std::int64_t columns, Sums& sums) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size, matrix = lane / 8;
    std::uint32_t b[row_tiles][4];  // of rows of the weight: (slots, rows) transposed
    for (int t = 0; t < row_tiles; ++t)
        cuda::load_matrices<true>(b[t], &shared.b[lane % 8 + matrix / 2 * 8][row + 16 * t + matrix % 2 * 8]);
    for (int j = 0; j < groups * tiles_of_group; j += 2) {
        if (8 * j / group_columns * group_columns >= columns) return;
        std::uint32_t a[4];  // of the products j and j + 1
        cuda::load_matrices<true>(a, &shared.a[lane % 8 + matrix % 2 * 8][column + 8 * (j + matrix / 2)]);
        for (int t = 0; t < row_tiles; ++t) {
            if (16 * t >= rows) continue;
            cuda::mma(sums[t][j], b[t], {a[0], a[1]});
            cuda::mma(sums[t][j + 1], b[t], {a[2], a[3]});
        }
    }
}

/// Joins the words of rows and columns from (row, column) on and stores the effective weight.
__device__ void finish(const Merge& g, std::int64_t row, std::int64_t column, const Sums& sums) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    const auto scale = static_cast<float>(g.e.scale), base = static_cast<float>(g.e.base);
    for (int half = 0; half < 2 * row_tiles; ++half) {
        const std::int64_t i = row + 8 * half + lane / 4;
        if (i >= g.m) return;
        const auto row_scale = static_cast<float>(g.e.row_scale[g.e.row0 + i]);
        for (int group = 0; group < groups; ++group) {
            const std::int64_t j = column + group * group_columns + lane % 4 * chunk, count = g.n - j;
            const auto piece = load_piece<chunk>(g.w, i * g.n + j, count, g.vectors);
            Chunk<bf16, chunk> out;
            for (int c = 0; c < chunk; ++c) {
                const float product = sums[half / 2][group * tiles_of_group + c / 2][half % 2 * 2 + c % 2];
                out.x[c] = narrow<bf16>(row_scale * std::fma(scale, product, base * piece.value(c)));
            }
            store_part(g.merged + i * g.n + j, out, count, g.vectors);
        }
    }
}

__global__ void __launch_bounds__(block, 2) merge_tiles(Merge g) {
    auto& shared = cuda::block_memory<MergeMemory>();
    const std::int64_t across = cuda::ceil_div(g.n, tile);
    const std::int64_t top = blockIdx.x / across * tile, left = blockIdx.x % across * tile;
    const int warp = static_cast<int>(threadIdx.x) / warp_size;
    const int row = warp / (tile / warp_columns) * warp_rows,
              column = warp % (tile / warp_columns) * warp_columns;
    const std::int64_t rows = g.m - top - row, columns = g.n - left - column;
    Sums sums = {};
    Fetched next = fetch(g, top, left, 0);
    for (std::int64_t first = 0; first < g.e.slots; first += slab) {
        __syncthreads();  // the slab before is no longer read
        keep(next, shared);
        __syncthreads();
        if (first + slab < g.e.slots) next = fetch(g, top, left, first + slab);
        if (rows > 0 && columns > 0) multiply(shared, row, column, rows, columns, sums);
    }
    if (columns > 0) finish(g, top + row, left + column, sums);
}

}  // namespace

void merge_split(FrozenWeight w, const EffectiveWeight& effective, Tensor merged) {
    const std::int64_t m = w.hi.dim(0), n = w.hi.dim(1);
    const LowRankFactors& f = effective.factors;
    const bool b_vectors =
        f.a.empty() || (f.b_transposed.dim(1) % chunk == 0 && f.row0 % chunk == 0 && aligned(f.b_transposed));
    cuda::launch({cuda::ceil_div(m, tile) * cuda::ceil_div(n, tile), block, sizeof(MergeMemory)}, merge_tiles,
                 Merge{words_of<bf16>(w), Effect<bf16>(effective), merged.data<bf16>(), m, n,
                       n % chunk == 0 && aligned(w.hi, w.lo, merged, f.a), b_vectors});
}

}  // namespace switchyard::kernels
