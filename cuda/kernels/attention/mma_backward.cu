// The backward pass of attention on tensor cores, for bf16: d_q and delta first, by blocks of four warps that
// own queries of a head and walk their keys; then d_k and d_v, by blocks that own 64 keys of a key-value
// head, 16 a warp, and walk the queries of all heads of its group in order. Both recompute the weights from
// lse, 16 keys or queries at a time, and keep them in registers (Dao et al. 2022); no sum depends on timing.
#include <cmath>

#include "cuda/kernels/attention/key_walk.cuh"

namespace switchyard::kernels::attention {
namespace {

template <int padded, int sets>
struct QueryWarp {
    QueryRows<sets> rows;
    float scale2;  // of scores in powers of two
    Fragment q[sets][padded / 16], d_o[sets][padded / 16];
    float lse2[sets][2], delta[sets][2];  // lse in powers of two; of rows g and g + 8
    Sums d_q[sets][padded / 8] = {};      // without the scale of the scores

    __device__ void load(const Backward<bf16>& a, std::int64_t b, std::int64_t head) {
        const int tokens = static_cast<int>(a.e.t), d = static_cast<int>(a.e.d);
        const std::int64_t at = (b * a.e.h + head) * a.e.t;
        SWITCHYARD_UNROLL
        for (int m = 0; m < sets; ++m) {
            const int row0 = rows.row0 + warp_rows * m;
            load_rows(q[m], head_of(a.q, a.e, a.e.h, b, head), row0, tokens, d);
            load_rows(d_o[m], head_of(a.d_o, a.e, a.e.h, b, head), row0, tokens, d);
            make_delta(m, head_of(a.o, a.e, a.e.h, b, head), d);
            SWITCHYARD_UNROLL
            for (int half = 0; half < 2; ++half) {
                const int t = rows.row(m, half);
                lse2[m][half] = t < tokens ? a.lse[at + t] * log2_e : INFINITY;
                if (t < tokens && lane_column() == 0) a.delta[at + t] = delta[m][half];
            }
        }
    }

    template <bool masked>
    __device__ void add_tile(const Tile<padded>& k, const Tile<padded>& v, int key0) {
        SWITCHYARD_NO_UNROLL
        for (int n = 0; n < mma_tile / 16; ++n) {
            if (masked && key0 + 16 * n > rows.last_row()) continue;
            Sums s[sets][2] = {}, d_p[sets][2] = {};
            SWITCHYARD_UNROLL
            for (int c = 0; c < padded / 16; ++c) {
                Fragment keys, values;
                load_rows_as_columns<padded>(keys, k, 16 * n, 16 * c);
                load_rows_as_columns<padded>(values, v, 16 * n, 16 * c);
                SWITCHYARD_UNROLL
                for (int m = 0; m < sets; ++m) {
                    if (masked && !rows.reaches(m, key0 + 16 * n)) continue;
                    mma_pair(s[m][0], s[m][1], q[m][c], keys);
                    mma_pair(d_p[m][0], d_p[m][1], d_o[m][c], values);
                }
            }
            Fragment d_scores[sets];
            SWITCHYARD_UNROLL
            for (int m = 0; m < sets; ++m) {
                SWITCHYARD_UNROLL
                for (int j = 0; j < 2; ++j) to_d_scores<masked>(s[m][j], d_p[m][j], m, key0 + 16 * n + 8 * j);
                pack_operand(d_scores[m], s[m][0], s[m][1]);
            }
            SWITCHYARD_UNROLL
            for (int c = 0; c < padded / 16; ++c) {
                Fragment keys;
                load_columns<padded>(keys, k, 16 * n, 16 * c);
                SWITCHYARD_UNROLL
                for (int m = 0; m < sets; ++m)
                    if (!masked || rows.reaches(m, key0 + 16 * n))
                        mma_pair(d_q[m][2 * c], d_q[m][2 * c + 1], d_scores[m], keys);
            }
        }
    }

  private:
    /// delta = sum over D of o d_o, by the four lanes of a row.
    __device__ void make_delta(int m, Head<const bf16> from, int d) {
        Fragment o[padded / 16];
        load_rows(o, from, rows.row0 + warp_rows * m, rows.tokens, d);
        float sum[2] = {};
        SWITCHYARD_UNROLL
        for (int c = 0; c < padded / 16; ++c) SWITCHYARD_UNROLL
        for (int i = 0; i < 4; ++i)
            sum[i % 2] +=
                low_half(o[c][i]) * low_half(d_o[m][c][i]) + high_half(o[c][i]) * high_half(d_o[m][c][i]);
        delta[m][0] = row_sum(sum[0]);
        delta[m][1] = row_sum(sum[1]);
    }
    /// Scores of 8 keys become the gradients of the scores.
    template <bool masked>
    __device__ void to_d_scores(Sums& s, const Sums& d_p, int m, int key0) {
        SWITCHYARD_UNROLL
        for (int i = 0; i < 4; ++i) {
            const int half = i / 2;
            const float p = weight_of_exponent(s[i] * scale2 - lse2[m][half]);
            s[i] = p * (d_p[i] - delta[m][half]);
            if (masked && !rows.sees(m, half, key0 + lane_column() + i % 2)) s[i] = 0;
        }
    }
};

template <int padded, int sets>
__global__ void __launch_bounds__(mma_threads) query_gradient(Backward<bf16> a) {
    const MmaPlace p(a.e, a.e.h, mma_tile * sets, true);
    const KeyWalk<padded, sets> keys(cuda::block_memory<KeyTilesShared<padded, sets>>(), a, p);
    QueryWarp<padded, sets> warp{.rows = keys.rows(a, p), .scale2 = a.scale * log2_e};
    warp.load(a, p.b, p.head);
    keys.run(warp);
    const Head<bf16> d_q = head_of(a.d_q, a.e, a.e.h, p.b, p.head);
    SWITCHYARD_UNROLL
    for (int m = 0; m < sets; ++m)
        store_rows(warp.d_q[m], d_q, warp.rows.row0 + warp_rows * m, keys.tokens, keys.d, {a.scale, a.scale});
}

/// What a tile of queries needs beside q and d_o. A query beyond the last token has an infinite lse, so that
/// it adds nothing.
struct QueryNumbers {
    float lse2[mma_tile], delta[mma_tile];
    std::int32_t first_key[mma_tile];
};
/// One query's, on its way from global memory.
struct QueryNumber {
    float lse2 = INFINITY, delta = 0;
    std::int32_t first_key = 0;

    QueryNumber() = default;
    __device__ QueryNumber(const Backward<bf16>& a, std::int64_t b, std::int64_t head, int query) {
        if (static_cast<int>(threadIdx.x) >= mma_tile || query >= a.e.t) return;
        const std::int64_t at = (b * a.e.h + head) * a.e.t + query;
        lse2 = a.lse[at] * log2_e;
        delta = a.delta[at];
        first_key = a.visible.first_key(b, query);
    }
    __device__ void store(QueryNumbers& to) const {
        const int i = static_cast<int>(threadIdx.x);
        if (i >= mma_tile) return;
        to.lse2[i] = lse2, to.delta[i] = delta, to.first_key[i] = first_key;
    }
};

template <int padded>
struct QueryTilesShared {
    Tile<padded> q[2], d_o[2];
    QueryNumbers numbers[2];
};

template <int padded>
struct KeyWarp {
    int row0, tokens;  // the first key
    float scale2;
    Fragment k[padded / 16], v[padded / 16];
    Sums d_k[padded / 8] = {}, d_v[padded / 8] = {};  // d_k without the scale of the scores

    /// The tile's queries from query0 on; `masked` if some of them do not see some key.
    template <bool masked>
    __device__ void add_tile(const Tile<padded>& q, const Tile<padded>& d_o, const QueryNumbers& numbers,
                             int query0) {
        SWITCHYARD_NO_UNROLL
        for (int n = 0; n < mma_tile / 16; ++n) {
            if (masked && (query0 + 16 * n + 15 < row0 || query0 + 16 * n >= tokens)) continue;
            Sums s[2] = {}, d_p[2] = {};
            SWITCHYARD_UNROLL
            for (int c = 0; c < padded / 16; ++c) {
                Fragment queries, gradients;
                load_rows_as_columns<padded>(queries, q, 16 * n, 16 * c);
                load_rows_as_columns<padded>(gradients, d_o, 16 * n, 16 * c);
                mma_pair(s[0], s[1], k[c], queries);
                mma_pair(d_p[0], d_p[1], v[c], gradients);
            }
            SWITCHYARD_UNROLL
            for (int j = 0; j < 2; ++j) to_weights<masked>(s[j], d_p[j], numbers, query0, 16 * n + 8 * j);
            Fragment weights, d_scores;
            pack_operand(weights, s[0], s[1]);
            pack_operand(d_scores, d_p[0], d_p[1]);
            SWITCHYARD_UNROLL
            for (int c = 0; c < padded / 16; ++c) {
                Fragment queries, gradients;
                load_columns<padded>(gradients, d_o, 16 * n, 16 * c);
                load_columns<padded>(queries, q, 16 * n, 16 * c);
                mma_pair(d_v[2 * c], d_v[2 * c + 1], weights, gradients);
                mma_pair(d_k[2 * c], d_k[2 * c + 1], d_scores, queries);
            }
        }
    }

  private:
    /// Scores of 8 queries become weights, gradients of weights become gradients of scores.
    template <bool masked>
    __device__ void to_weights(Sums& s, Sums& d_p, const QueryNumbers& numbers, int query0, int first) {
        SWITCHYARD_UNROLL
        for (int i = 0; i < 4; ++i) {
            const int query = first + lane_column() + i % 2, key = row0 + lane_row() + i / 2 * 8;
            s[i] = weight_of_exponent(s[i] * scale2 - numbers.lse2[query]);
            d_p[i] = s[i] * (d_p[i] - numbers.delta[query]);
            if (masked && (key > query0 + query || key < numbers.first_key[query])) s[i] = d_p[i] = 0;
        }
    }
};

/// For 128 columns, fragments and sums alone fill 192 of 255 registers, and ptxas spills six; v would have to
/// be read from shared memory once for each 16 queries instead.
template <int padded>
__global__ void __launch_bounds__(mma_threads) key_gradients(Backward<bf16> a) {
    auto& shared = cuda::block_memory<QueryTilesShared<padded>>();
    const MmaPlace p(a.e, a.e.k, mma_tile, false);
    const int tokens = static_cast<int>(a.e.t), d = static_cast<int>(a.e.d), key0 = p.tile * mma_tile;
    const int group = static_cast<int>(a.e.group()),
              tiles = (tokens + mma_tile - 1) / mma_tile - p.tile,  // of queries that may see a key
        steps = group * tiles;
    const auto query_tile = [&](int step) { return p.tile + step % tiles; };
    const auto next_step = [&](int step) {
        while (step < steps && a.visible.bounds_of(p.b, query_tile(step)).lowest >= key0 + mma_tile) ++step;
        return step;
    };
    const auto copy = [&](int step, int stage) {
        const std::int64_t head = p.head * group + step / tiles;
        const int query0 = query_tile(step) * mma_tile;
        copy_tile<padded>(shared.q[stage], head_of(a.q, a.e, a.e.h, p.b, head), query0, tokens, d);
        copy_tile<padded>(shared.d_o[stage], head_of(a.d_o, a.e, a.e.h, p.b, head), query0, tokens, d);
        cuda::commit_copies();
        return QueryNumber(a, p.b, head, query0 + static_cast<int>(threadIdx.x));
    };
    int step = 0;  // every query sees its own key
    copy(step, 0).store(shared.numbers[0]);
    KeyWarp<padded> warp{
        .row0 = key0 + warp_number() * warp_rows, .tokens = tokens, .scale2 = a.scale * log2_e};
    load_rows(warp.k, head_of(a.k, a.e, a.e.k, p.b, p.head), warp.row0, tokens, d);
    load_rows(warp.v, head_of(a.v, a.e, a.e.k, p.b, p.head), warp.row0, tokens, d);
    for (int stage = 0; step < steps; stage = 1 - stage) {
        cuda::wait_copies<0>();
        __syncthreads();  // all of this tile is there, and the tile before is no longer read
        const int query0 = query_tile(step) * mma_tile, next = next_step(step + 1);
        const bool all_visible = query0 >= warp.row0 + warp_rows - 1 &&
                                 a.visible.bounds_of(p.b, query_tile(step)).highest <= warp.row0;
        QueryNumber number;
        if (next < steps) number = copy(next, 1 - stage);
        if (warp.row0 < tokens && all_visible)
            warp.template add_tile<false>(shared.q[stage], shared.d_o[stage], shared.numbers[stage], query0);
        else if (warp.row0 < tokens)
            warp.template add_tile<true>(shared.q[stage], shared.d_o[stage], shared.numbers[stage], query0);
        if (next < steps) number.store(shared.numbers[1 - stage]);
        step = next;
    }
    store_rows(warp.d_k, head_of(a.d_k, a.e, a.e.k, p.b, p.head), warp.row0, tokens, d, {a.scale, a.scale});
    store_rows(warp.d_v, head_of(a.d_v, a.e, a.e.k, p.b, p.head), warp.row0, tokens, d, {1, 1});
}

}  // namespace

void TensorCores::backward(const Backward<bf16>& a) {
    with_padded(a.e.d, [&]<int padded>() {
        constexpr int sets = sets_of(padded);
        cuda::launch(mma_grid<KeyTilesShared<padded, sets>>(a.e, a.e.h, mma_tile * sets),
                     query_gradient<padded, sets>, a);
        cuda::launch(mma_grid<QueryTilesShared<padded>>(a.e, a.e.k, mma_tile), key_gradients<padded>, a);
    });
}

}  // namespace switchyard::kernels::attention
