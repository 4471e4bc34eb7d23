// The forward pass of attention on tensor cores, for bf16. A block of four warps owns 64 or 128 queries of a
// head, 16 or 32 a warp, with q, the scores of 64 keys and the running sums in registers. Keys and values
// come tile by tile by copies in the background, one tile ahead; the softmax is a running one (Dao et al.
// 2022).
#include <cmath>

#include "cuda/kernels/attention/key_walk.cuh"

namespace switchyard::kernels::attention {
namespace {

/// Keys whose scores a warp holds at a time: as many as registers suffice for.
constexpr int keys_of(int padded) {
    return padded == 64 ? 32 : mma_tile;
}

template <int padded, int sets>
struct Warp {
    QueryRows<sets> rows;
    float scale2;  // of scores in powers of two
    Fragment q[sets][padded / 16];
    Sums out[sets][padded / 8] = {};
    float largest[sets][2], sum[sets][2] = {};  // `sum`: this lane's part

    static constexpr int keys = keys_of(padded);

    /// The tile's keys from key0 on; `masked` if some query does not see some of them.
    template <bool masked>
    __device__ void add_tile(const Tile<padded>& k, const Tile<padded>& v, int key0) {
        SWITCHYARD_NO_UNROLL
        for (int first = 0; first < mma_tile; first += keys)
            if (!masked || key0 + first <= rows.last_row()) add_keys<masked>(k, v, key0, first);
    }

  private:
    /// Keys [first, first + keys) of the tile.
    template <bool masked>
    __device__ void add_keys(const Tile<padded>& k, const Tile<padded>& v, int key0, int first) {
        Sums score[sets][keys / 8] = {};
        SWITCHYARD_UNROLL
        for (int n = 0; n < keys / 16; ++n) {
            if (masked && key0 + first + 16 * n > rows.last_row()) continue;
            SWITCHYARD_UNROLL
            for (int c = 0; c < padded / 16; ++c) {
                Fragment b;
                load_rows_as_columns<padded>(b, k, first + 16 * n, 16 * c);
                SWITCHYARD_UNROLL
                for (int m = 0; m < sets; ++m)
                    if (!masked || rows.reaches(m, key0 + first + 16 * n))
                        mma_pair(score[m][2 * n], score[m][2 * n + 1], q[m][c], b);
            }
        }
        SWITCHYARD_UNROLL
        for (int m = 0; m < sets; ++m) SWITCHYARD_UNROLL
        for (int half = 0; half < 2; ++half) update_row<masked>(score[m], m, half, key0 + first);
        SWITCHYARD_UNROLL
        for (int n = 0; n < keys / 16; ++n) {
            if (masked && key0 + first + 16 * n > rows.last_row()) continue;
            Fragment a[sets];
            SWITCHYARD_UNROLL
            for (int m = 0; m < sets; ++m) pack_operand(a[m], score[m][2 * n], score[m][2 * n + 1]);
            SWITCHYARD_UNROLL
            for (int c = 0; c < padded / 16; ++c) {
                Fragment b;
                load_columns<padded>(b, v, first + 16 * n, 16 * c);
                SWITCHYARD_UNROLL
                for (int m = 0; m < sets; ++m)
                    if (!masked || rows.reaches(m, key0 + first + 16 * n))
                        mma_pair(out[m][2 * c], out[m][2 * c + 1], a[m], b);
            }
        }
    }

    /// Scores of one row become weights; what the row has summed so far is scaled to the new maximum.
    template <bool masked>
    __device__ void update_row(Sums (&score)[keys / 8], int m, int half, int key0) {
        float top = largest[m][half];
        SWITCHYARD_UNROLL
        for (int n = 0; n < keys / 8; ++n) SWITCHYARD_UNROLL
        for (int e = 0; e < 2; ++e) {
            float& s = score[n][2 * half + e];
            if (masked && !rows.sees(m, half, key0 + 8 * n + lane_column() + e)) s = -INFINITY;
            top = fmaxf(top, s);
        }
        top = row_max(top);
        const float base = masked && top == -INFINITY ? 0 : top;  // nothing seen yet: no difference with it
        const float shrink = cuda::exp2_device((largest[m][half] - base) * scale2);
        float part = 0;
        SWITCHYARD_UNROLL
        for (int n = 0; n < keys / 8; ++n) SWITCHYARD_UNROLL
        for (int e = 0; e < 2; ++e) {
            float& s = score[n][2 * half + e];
            s = cuda::exp2_device((s - base) * scale2);
            part += s;
        }
        largest[m][half] = top;
        sum[m][half] = sum[m][half] * shrink + part;
        SWITCHYARD_UNROLL
        for (int n = 0; n < padded / 8; ++n) SWITCHYARD_UNROLL
        for (int e = 0; e < 2; ++e) out[m][n][2 * half + e] *= shrink;
    }
};

template <int padded, int sets>
__global__ void __launch_bounds__(mma_threads, 2) forward(Forward<bf16> a) {
    const MmaPlace p(a.e, a.e.h, mma_tile * sets, true);
    const KeyWalk<padded, sets> keys(cuda::block_memory<KeyTilesShared<padded, sets>>(), a, p);
    const int tokens = keys.tokens, d = keys.d;
    Warp<padded, sets> warp{.rows = keys.rows(a, p), .scale2 = a.scale * log2_e};
    const Head<const bf16> q = head_of(a.q, a.e, a.e.h, p.b, p.head);
    SWITCHYARD_UNROLL
    for (int m = 0; m < sets; ++m) {
        load_rows(warp.q[m], q, warp.rows.row0 + warp_rows * m, tokens, d);
        warp.largest[m][0] = warp.largest[m][1] = -INFINITY;
    }
    keys.run(warp);
    const Head<bf16> o = head_of(a.o, a.e, a.e.h, p.b, p.head);
    float* lse = a.lse + (p.b * a.e.h + p.head) * a.e.t;
    SWITCHYARD_UNROLL
    for (int m = 0; m < sets; ++m) {
        const float sums[2] = {row_sum(warp.sum[m][0]), row_sum(warp.sum[m][1])};
        store_rows(warp.out[m], o, warp.rows.row0 + warp_rows * m, tokens, d, {1 / sums[0], 1 / sums[1]});
        SWITCHYARD_UNROLL
        for (int half = 0; half < 2; ++half)
            if (const int t = warp.rows.row(m, half); t < tokens && lane_column() == 0)
                lse[t] = warp.largest[m][half] * a.scale + logf(sums[half]);
    }
}

}  // namespace

void TensorCores::forward(const Forward<bf16>& a) {
    with_padded(a.e.d, [&]<int padded>() {
        constexpr int sets = sets_of(padded);
        cuda::launch(mma_grid<KeyTilesShared<padded, sets>>(a.e, a.e.h, mma_tile * sets),
                     attention::forward<padded, sets>, a);
    });
}

}  // namespace switchyard::kernels::attention
