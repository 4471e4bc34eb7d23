// The equations of Dao et al. 2022, one operation each, in the order in which cuDNN looks for them ("fused
// flash attention" in its documentation of graphs). Arrays have dimensions (B, H, T, D) whatever their
// strides.
#include "cuda/kernels/attention/cudnn/attention_graphs.hpp"

namespace switchyard::kernels::attention::fused {
namespace {

using cuda::cudnn::Array;
using cuda::cudnn::Extent;
using cuda::cudnn::Graph;

constexpr cudnnDataType_t bf16 = CUDNN_DATA_BFLOAT16, f32 = CUDNN_DATA_FLOAT;

/// A graph in the making, with names for what both passes have.
struct Builder {
    const Extents& e;
    Graph graph;
    const Extent scores{e.b, e.h, e.t, e.t}, rows{e.b, e.h, e.t, 1}, queries{e.b, e.h, e.t, e.d};

    explicit Builder(const Extents& extents) : e(extents) {}

    /// Our (B, T, heads, D).
    Array heads(std::int64_t count) {
        return graph.outside(bf16, {e.b, count, e.t, e.d}, {e.t * count * e.d, e.d, count * e.d, 1});
    }
    Array transposed_heads(std::int64_t count) {
        return graph.outside(bf16, {e.b, count, e.d, e.t}, {e.t * count * e.d, e.d, 1, count * e.d});
    }
    Array numbers_of_rows() { return graph.outside(f32, rows, {e.h * e.t, e.t, 1, 1}); }

    Array product(Array a, Array b) {
        const Array c = graph.inside(f32, scores);
        graph.matmul(a, b, c);
        return c;
    }
    Array of_scores(cudnnPointwiseMode_t mode, Array x, Array b, cudnnDataType_t type = f32) {
        const Array y = graph.inside(type, scores);
        graph.pointwise(mode, x, b, y);
        return y;
    }
    Array exponential(Array x) {
        const Array y = graph.inside(f32, scores);
        graph.pointwise(CUDNN_POINTWISE_EXP, x, y);
        return y;
    }
    Array reduced(cudnnReduceTensorOp_t kind, Array x) {
        const Array y = graph.inside(f32, rows);
        graph.reduce(kind, x, y);
        return y;
    }
    /// Scores of keys after the query become `lowest`.
    Array masked(Array x, Array lowest) {
        const Array query = graph.inside(CUDNN_DATA_INT32, scores),
                    key = graph.inside(CUDNN_DATA_INT32, scores),
                    seen = graph.inside(CUDNN_DATA_BOOLEAN, scores), y = graph.inside(f32, scores);
        graph.index(x, 2, query);
        graph.index(x, 3, key);
        graph.pointwise(CUDNN_POINTWISE_CMP_GE, query, key, seen);
        graph.select(x, lowest, seen, y);
        return y;
    }
    Array transposed_scores(Array x) {
        const Array y = graph.inside(bf16, scores, {e.h * e.t * e.t, e.t * e.t, 1, e.t});
        graph.reshape(x, y);
        return y;
    }
    /// Gradients of keys or values: x y, summed over the heads of a group.
    void gradient(Array x, Array y, Array result) {
        if (e.group() == 1) return graph.matmul(x, y, result);
        const Array of_heads = graph.inside(f32, queries);
        graph.matmul(x, y, of_heads);
        graph.reduce(CUDNN_REDUCE_TENSOR_ADD, of_heads, result);
    }
};

}  // namespace

Graph forward_graph(const Extents& e) {
    Builder g(e);
    const Array q = g.heads(e.h), k = g.transposed_heads(e.k), v = g.heads(e.k), o = g.heads(e.h),
                lse = g.numbers_of_rows(), scale = g.graph.scalar(), lowest = g.graph.scalar();
    const Array s = g.masked(g.of_scores(CUDNN_POINTWISE_MUL, g.product(q, k), scale), lowest);
    const Array largest = g.reduced(CUDNN_REDUCE_TENSOR_MAX, s);
    const Array weights = g.exponential(g.of_scores(CUDNN_POINTWISE_SUB, s, largest));
    const Array sum = g.reduced(CUDNN_REDUCE_TENSOR_ADD, weights), logarithm = g.graph.inside(f32, g.rows);
    g.graph.pointwise(CUDNN_POINTWISE_LOG, sum, logarithm);
    g.graph.pointwise(CUDNN_POINTWISE_ADD, largest, logarithm, lse);
    g.graph.matmul(g.of_scores(CUDNN_POINTWISE_DIV, weights, sum, bf16), v, o);
    return std::move(g.graph);
}

Graph backward_graph(const Extents& e) {
    Builder g(e);
    const Array q = g.heads(e.h), k = g.transposed_heads(e.k), v = g.transposed_heads(e.k), o = g.heads(e.h),
                d_o = g.heads(e.h), lse = g.numbers_of_rows(), delta = g.numbers_of_rows(),
                d_q = g.heads(e.h), d_k = g.heads(e.k), d_v = g.heads(e.k), scale = g.graph.scalar(),
                lowest = g.graph.scalar(), one = g.graph.scalar();
    const Array products = g.graph.inside(f32, g.queries);
    g.graph.pointwise(CUDNN_POINTWISE_MUL, d_o, o, products);
    // Times what dropout keeps, which is all: without this product cuDNN has no kernel that fuses what
    // follows, and stores scores in f32.
    g.graph.pointwise(CUDNN_POINTWISE_MUL, g.reduced(CUDNN_REDUCE_TENSOR_ADD, products), one, delta);

    const Array s = g.of_scores(CUDNN_POINTWISE_MUL, g.product(q, k), scale);
    const Array p = g.exponential(g.masked(g.of_scores(CUDNN_POINTWISE_SUB, s, lse), lowest));
    g.gradient(g.transposed_scores(p), d_o, d_v);

    const Array d_p = g.of_scores(CUDNN_POINTWISE_SUB, g.product(d_o, v), delta);
    const Array d_s = g.of_scores(CUDNN_POINTWISE_MUL, g.of_scores(CUDNN_POINTWISE_MUL, d_p, p), scale, bf16);
    g.gradient(g.transposed_scores(d_s), q, d_k);

    const Array keys = g.graph.inside(bf16, {e.b, e.k, e.t, e.d}, {e.t * e.k * e.d, e.d, e.k * e.d, 1});
    g.graph.reshape(k, keys);
    g.graph.matmul(d_s, keys, d_q);
    return std::move(g.graph);
}

std::size_t scores_bytes(const Extents& e) {
    constexpr std::int64_t query_tile = 64, key_tile = 128;
    const auto padded = [&](std::int64_t tile) { return (e.t + tile - 1) / tile * tile; };
    return static_cast<std::size_t>(e.b * e.h * padded(query_tile) * padded(key_tile)) * size_of(DType::bf16);
}

}  // namespace switchyard::kernels::attention::fused
