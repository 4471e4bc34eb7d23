// The backward pass of attention without tensor cores. Scores are recomputed from q, k and lse by two kernels
// (Dao et al. 2022): one makes d_q and delta, a block of 64 threads for 32 queries of a head; the other one
// d_k and d_v, a block for 32 keys of a key-value head, which walks the queries of all heads of its group in
// order.
#include "cuda/kernels/attention/simt.cuh"

namespace switchyard::kernels::attention {
namespace {

/// The chunks whose scores are computed, and per query what its gradients need.
template <class A>
struct Shared {
    Chunk<A> q, k, v, d_o;
    A lse[simt_tile], delta[simt_tile];
    std::int32_t first_key[simt_tile];
};
template <class A>
struct QueryShared : Shared<A> {
    Scores<A> d_scores;  // queries x keys
};
template <class A>
struct KeyShared : Shared<A> {
    Scores<A> weights, d_scores;  // keys x queries
};

/// A weight and the gradient of its score, for query (of the tile) at token t and a key; zeros if the query
/// does not see it.
template <class A>
struct Weight {
    A p = 0, d_score = 0;
    __device__ Weight(const Shared<A>& shared, int query, int t, int key, A score, A d_p, A scale) {
        if (key > t || key < shared.first_key[query]) return;
        p = weight_of(score * scale - shared.lse[query]);
        d_score = p * (d_p - shared.delta[query]) * scale;
    }
};

/// Rows [row0, row0 + tile) of lse, delta and first_key, by the first 32 threads. Queries beyond the last
/// token see no key.
template <class T>
__device__ void load_queries(Shared<Wide<T>>& shared, const Backward<T>& a, std::int64_t b, std::int64_t head,
                             int row0) {
    const int row = static_cast<int>(threadIdx.x), query = row0 + row;
    if (row >= simt_tile) return;
    const bool inside = query < a.e.t;
    const std::int64_t at = (b * a.e.h + head) * a.e.t + query;
    shared.lse[row] = inside ? a.lse[at] : 0;
    shared.delta[row] = inside ? a.delta[at] : 0;
    shared.first_key[row] = inside ? a.visible.first_key(b, query) : INT32_MAX;
}

/// delta of the block's queries, by two threads a row; the block of the first chunk keeps it for the other
/// kernel.
template <class T>
__device__ void make_delta(Shared<Wide<T>>& shared, const Backward<T>& a, const Place& p) {
    const int row = static_cast<int>(threadIdx.x) / 2, query = p.tile * simt_tile + row;
    Wide<T> delta = 0;
    if (query < a.e.t) {
        const T *o = head_of(a.o, a.e, a.e.h, p.b, p.head).row(query),
                *d_o = head_of(a.d_o, a.e, a.e.h, p.b, p.head).row(query);
        for (int j = static_cast<int>(threadIdx.x) % 2; j < a.e.d; j += 2) delta += wide(o[j]) * wide(d_o[j]);
    }
    delta += __shfl_xor_sync(cuda::all_lanes, delta, 1);
    if (threadIdx.x % 2 != 0) return;
    const std::int64_t at = (p.b * a.e.h + p.head) * a.e.t + query;
    const bool inside = query < a.e.t;
    shared.delta[row] = delta;
    shared.lse[row] = inside ? a.lse[at] : 0;
    shared.first_key[row] = inside ? a.visible.first_key(p.b, query) : INT32_MAX;
    if (inside && p.chunk == 0) a.delta[at] = delta;
}

template <class T>
__global__ void __launch_bounds__(simt_threads) query_gradient(Backward<T> a) {
    using A = Wide<T>;
    QueryShared<A>& shared = cuda::block_memory<QueryShared<A>>();
    const Place p(a.e, a.e.h, chunk_width<A>, true);
    const int tokens = static_cast<int>(a.e.t), d = static_cast<int>(a.e.d), row0 = p.tile * simt_tile;
    const Head<const T> q = head_of(a.q, a.e, a.e.h, p.b, p.head),
                        d_o = head_of(a.d_o, a.e, a.e.h, p.b, p.head),
                        k = head_of(a.k, a.e, a.e.k, p.b, p.head / a.e.group()),
                        v = head_of(a.v, a.e, a.e.k, p.b, p.head / a.e.group());
    const Columns<A> mine(d, p.chunk);
    Result<A> d_q;
    make_delta(shared, a, p);
    const int first_tile = a.visible.bounds_of(p.b, p.tile).lowest / simt_tile;
    for (int tile = first_tile; tile <= p.tile; ++tile) {
        const int key0 = tile * simt_tile;
        A s[micro][micro] = {}, d_p[micro][micro] = {};
        for (int chunk = 0; chunk < p.chunks; ++chunk) {
            const Columns<A> columns(d, chunk);
            if (tile > first_tile || chunk > 0) __syncthreads();  // what was there is no longer read
            if (tile == first_tile || p.chunks > 1) {
                load_chunk(shared.q, q, row0, tokens, columns);
                load_chunk(shared.d_o, d_o, row0, tokens, columns);
            }
            load_chunk(shared.k, k, key0, tokens, columns);
            load_chunk(shared.v, v, key0, tokens, columns);
            __syncthreads();
            add_dots(s, shared.q, shared.k, columns.count);
            add_dots(d_p, shared.d_o, shared.v, columns.count);
        }
        for (int i = 0; i < micro; ++i)
            for (int j = 0; j < micro; ++j) {
                const int query = thread_row() + side * i, key = thread_column() + side * j;
                shared.d_scores[query][key] =
                    Weight<A>(shared, query, row0 + query, key0 + key, s[i][j], d_p[i][j], a.scale).d_score;
            }
        if (p.chunk < p.chunks - 1) {
            __syncthreads();
            load_chunk(shared.k, k, key0, tokens, mine);
        }
        __syncthreads();
        d_q.add_product(shared.d_scores, shared.k, tokens - key0 < simt_tile ? tokens - key0 : simt_tile,
                        mine.count);
    }
    d_q.store(head_of(a.d_q, a.e, a.e.h, p.b, p.head), row0, tokens, mine);
}

template <class T>
__global__ void __launch_bounds__(simt_threads) key_gradients(Backward<T> a) {
    using A = Wide<T>;
    KeyShared<A>& shared = cuda::block_memory<KeyShared<A>>();
    const Place p(a.e, a.e.k, chunk_width<A>, false);
    const int tokens = static_cast<int>(a.e.t), d = static_cast<int>(a.e.d), key0 = p.tile * simt_tile;
    const Head<const T> k = head_of(a.k, a.e, a.e.k, p.b, p.head), v = head_of(a.v, a.e, a.e.k, p.b, p.head);
    const Columns<A> mine(d, p.chunk);
    Result<A> d_k, d_v;
    const int group = static_cast<int>(a.e.group()), steps = group * (p.tiles - p.tile);
    for (int step = 0; step < steps; ++step) {
        const int tile = p.tile + step % (p.tiles - p.tile), row0 = tile * simt_tile;
        if (a.visible.bounds_of(p.b, tile).lowest >= key0 + simt_tile) continue;
        const std::int64_t head = p.head * group + step / (p.tiles - p.tile);
        const Head<const T> q = head_of(a.q, a.e, a.e.h, p.b, head),
                            d_o = head_of(a.d_o, a.e, a.e.h, p.b, head);
        A s[micro][micro] = {}, d_p[micro][micro] = {};
        for (int chunk = 0; chunk < p.chunks; ++chunk) {
            const Columns<A> columns(d, chunk);
            __syncthreads();  // what was there is no longer read
            if (chunk == 0) load_queries(shared, a, p.b, head, row0);
            load_chunk(shared.q, q, row0, tokens, columns);
            load_chunk(shared.d_o, d_o, row0, tokens, columns);
            load_chunk(shared.k, k, key0, tokens, columns);
            load_chunk(shared.v, v, key0, tokens, columns);
            __syncthreads();
            add_dots(s, shared.k, shared.q, columns.count);
            add_dots(d_p, shared.v, shared.d_o, columns.count);
        }
        for (int i = 0; i < micro; ++i)
            for (int j = 0; j < micro; ++j) {
                const int key = thread_row() + side * i, query = thread_column() + side * j;
                const Weight<A> w(shared, query, row0 + query, key0 + key, s[i][j], d_p[i][j], a.scale);
                shared.weights[key][query] = w.p;
                shared.d_scores[key][query] = w.d_score;
            }
        if (p.chunk < p.chunks - 1) {
            __syncthreads();
            load_chunk(shared.q, q, row0, tokens, mine);
            load_chunk(shared.d_o, d_o, row0, tokens, mine);
        }
        __syncthreads();
        const int queries = tokens - row0 < simt_tile ? tokens - row0 : simt_tile;
        d_v.add_product(shared.weights, shared.d_o, queries, mine.count);
        d_k.add_product(shared.d_scores, shared.q, queries, mine.count);
    }
    d_k.store(head_of(a.d_k, a.e, a.e.k, p.b, p.head), key0, tokens, mine);
    d_v.store(head_of(a.d_v, a.e, a.e.k, p.b, p.head), key0, tokens, mine);
}

}  // namespace

template <class T>
void Simt::backward(const Backward<T>& a) {
    using A = Wide<T>;
    cuda::launch(simt_grid<T>(a.e, a.e.h, sizeof(QueryShared<A>)), query_gradient<T>, a);
    cuda::launch(simt_grid<T>(a.e, a.e.k, sizeof(KeyShared<A>)), key_gradients<T>, a);
}
template void Simt::backward(const Backward<float>&);
template void Simt::backward(const Backward<double>&);
template void Simt::backward(const Backward<bf16>&);

}  // namespace switchyard::kernels::attention
