// The forward pass of attention without tensor cores: for f32, f64, and what attention.cu cannot give to
// them. A block of 64 threads owns 32 queries of a head and walks the keys in tiles of 32 with a running
// softmax, in which two threads share a row (Dao et al. 2022).
#include "cuda/kernels/attention/simt.cuh"

namespace switchyard::kernels::attention {
namespace {

template <class A>
struct Shared {
    Chunk<A> q, k, v;
    Scores<A> scores;      // queries x keys, then the weights
    A factors[simt_tile];  // of the earlier sums of each row, at last of its results
};

__device__ float logarithm(float x) {
    return logf(x);
}
__device__ double logarithm(double x) {
    return log(x);
}
__device__ float exponential(float x) {
    return expf(x);
}
__device__ double exponential(double x) {
    return exp(x);
}

/// The running softmax of the row that this thread shares with its neighbour.
template <class A>
struct SoftmaxRow {
    static constexpr int half = simt_tile / 2;
    const int row = static_cast<int>(threadIdx.x) / 2, begin = static_cast<int>(threadIdx.x) % 2 * half;
    A largest = -INFINITY, sum = 0;

    /// Replaces the scores of keys [first, end) of a tile by weights, of all others by zeros; returns the
    /// factor by which earlier sums must be scaled.
    __device__ A update(Scores<A>& scores, int first, int end, A scale) {
        A(&s)[simt_tile + 1] = scores[row];
        A top = largest;
        for (int j = begin; j < begin + half; ++j)
            if (j >= first && j < end && s[j] > top) top = s[j];
        const A other = __shfl_xor_sync(cuda::all_lanes, top, 1);
        if (other > top) top = other;
        const A base = top == -INFINITY ? A(0) : top;  // nothing seen yet: the difference would be NaN
        A part = 0;
        for (int j = begin; j < begin + half; ++j) {
            s[j] = j >= first && j < end ? exponential((s[j] - base) * scale) : A(0);
            part += s[j];
        }
        part += __shfl_xor_sync(cuda::all_lanes, part, 1);
        const A shrink = exponential((largest - base) * scale);
        sum = sum * shrink + part;
        largest = top;
        return shrink;
    }
};

template <class T>
__global__ void __launch_bounds__(simt_threads) forward(Forward<T> a) {
    using A = Wide<T>;
    Shared<A>& shared = cuda::block_memory<Shared<A>>();
    const Place p(a.e, a.e.h, chunk_width<A>, true);
    const int tokens = static_cast<int>(a.e.t), d = static_cast<int>(a.e.d), row0 = p.tile * simt_tile;
    const Head<const T> q = head_of(a.q, a.e, a.e.h, p.b, p.head),
                        k = head_of(a.k, a.e, a.e.k, p.b, p.head / a.e.group()),
                        v = head_of(a.v, a.e, a.e.k, p.b, p.head / a.e.group());
    const Columns<A> mine(d, p.chunk);
    Result<A> out;
    SoftmaxRow<A> softmax;
    const int query = row0 + softmax.row, first_key = query < tokens ? a.visible.first_key(p.b, query) : 0;
    const int first_tile = a.visible.bounds_of(p.b, p.tile).lowest / simt_tile;
    for (int tile = first_tile; tile <= p.tile; ++tile) {
        const int key0 = tile * simt_tile;
        A s[micro][micro] = {};
        if (tile > first_tile) __syncthreads();  // the tile before is no longer read
        load_chunk(shared.v, v, key0, tokens, mine);
        for (int chunk = 0; chunk < p.chunks; ++chunk) {
            const Columns<A> columns(d, chunk);
            if (chunk > 0) __syncthreads();
            if (tile == first_tile || p.chunks > 1) load_chunk(shared.q, q, row0, tokens, columns);
            load_chunk(shared.k, k, key0, tokens, columns);
            __syncthreads();
            add_dots(s, shared.q, shared.k, columns.count);
        }
        for (int i = 0; i < micro; ++i)
            for (int j = 0; j < micro; ++j)
                shared.scores[thread_row() + side * i][thread_column() + side * j] = s[i][j];
        __syncthreads();
        const A shrink = softmax.update(shared.scores, first_key - key0, query + 1 - key0, a.scale);
        if (softmax.begin == 0) shared.factors[softmax.row] = shrink;
        __syncthreads();
        out.scale_rows(shared.factors);
        out.add_product(shared.scores, shared.v, tokens - key0 < simt_tile ? tokens - key0 : simt_tile,
                        mine.count);
    }
    __syncthreads();  // the factors of the last tile are no longer read
    if (softmax.begin == 0) {
        shared.factors[softmax.row] = 1 / softmax.sum;
        if (p.chunk == 0 && query < tokens)
            a.lse[(p.b * a.e.h + p.head) * a.e.t + query] =
                softmax.largest * a.scale + logarithm(softmax.sum);
    }
    __syncthreads();
    out.scale_rows(shared.factors);
    out.store(head_of(a.o, a.e, a.e.h, p.b, p.head), row0, tokens, mine);
}

}  // namespace

template <class T>
void Simt::forward(const Forward<T>& a) {
    cuda::launch(simt_grid<T>(a.e, a.e.h, sizeof(Shared<Wide<T>>)), attention::forward<T>, a);
}
template void Simt::forward(const Forward<float>&);
template void Simt::forward(const Forward<double>&);
template void Simt::forward(const Forward<bf16>&);

}  // namespace switchyard::kernels::attention
