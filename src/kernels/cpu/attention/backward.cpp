// The backward pass in tiles of queries and panels of keys (Dao et al. 2022). Scores are recomputed and
// stored as keys x queries, so that most products need no transpose.
#include <cmath>

#include "core/calls.hpp"
#include "core/shared_loop.hpp"
#include "kernels/cpu/attention/parts.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels {
namespace attention {
namespace {

template <class T>
struct BackwardScratch {
    T *q, *d_o, *k, *v;         // (tile, D), (tile, D), (T, D), (T, D): the head's rows without gaps
    Acc<T>*scores, *d_weights;  // (panel, tile): keys x queries
    T *weights, *d_scores;      // same, in the compute type; scores and d_weights themselves unless T is bf16
    Acc<T>*delta, *d_q;         // (tile), (tile, D)
    std::int32_t* start;        // (tile)
    Acc<T>*d_k, *d_v;           // (T, D): the sums of this unit, unless they go to a part of their own
};

template <class T>
BackwardScratch<T> backward_scratch(Carver& c, const Extents& e, bool with_sums) {
    BackwardScratch<T> s{};
    s.q = c.take<T>(tile_rows(e) * e.d);
    s.d_o = c.take<T>(tile_rows(e) * e.d);
    s.k = c.take<T>(e.t * e.d);
    s.v = c.take<T>(e.t * e.d);
    s.scores = c.take<Acc<T>>(tile_rows(e) * panel_keys(e));
    s.d_weights = c.take<Acc<T>>(tile_rows(e) * panel_keys(e));
    if constexpr (std::is_same_v<T, Acc<T>>) {
        s.weights = s.scores;
        s.d_scores = s.d_weights;
    } else {
        s.weights = c.take<T>(tile_rows(e) * panel_keys(e));
        s.d_scores = c.take<T>(tile_rows(e) * panel_keys(e));
    }
    s.delta = c.take<Acc<T>>(tile_rows(e));
    s.d_q = c.take<Acc<T>>(tile_rows(e) * e.d);
    s.start = c.take<std::int32_t>(tile_rows(e));
    if (with_sums) {
        s.d_k = c.take<Acc<T>>(e.t * e.d);
        s.d_v = c.take<Acc<T>>(e.t * e.d);
    }
    return s;
}
template <class T>
std::size_t backward_bytes(const Extents& e, bool with_sums) {
    return bytes_of([&](Carver& c) { backward_scratch<T>(c, e, with_sums); });
}

/// The units of work of a backward pass, and the number of partial sums of a key-value head's d_k and d_v:
/// one per query head of its group and segment. Independent of the number of threads, because it decides the
/// partial sums.
struct BackwardParts {
    std::int64_t pieces, parts, units;
    explicit BackwardParts(const Extents& e)
        : pieces(segments(e, 16)), parts(e.group() * pieces), units(e.b * e.h * pieces) {}
};

template <class T>
struct BackwardUnit {
    Head<T> q, k, v, o, d_o, d_q;
    const Acc<T>* lse;          // (T)
    const std::int32_t* start;  // (T) or null
    std::int64_t d;
    Acc<T> scale;
};

/// For one key and all queries of a tile: weights = exp(scale s - lse) and d_scores = scale weights
/// (d_weights - delta) where the key is visible to query t0 + i, zero elsewhere.
template <class T>
void backward_row(const BackwardScratch<T>& s, const BackwardUnit<T>& u, std::int64_t row, std::int64_t key,
                  std::int64_t t0, std::int64_t queries) {
    const Acc<T>*scores = s.scores + row * queries, *d_weights = s.d_weights + row * queries;
    const Acc<T>*lse = u.lse + t0, *delta = s.delta;
    T *weights = s.weights + row * queries, *d_scores = s.d_scores + row * queries;
    const std::int32_t* start = s.start;
    const auto first_query = static_cast<std::int32_t>(std::max<std::int64_t>(key - t0, 0));
    const auto key32 = static_cast<std::int32_t>(key);
    const auto count = static_cast<std::int32_t>(queries);
    const std::int32_t first = first_query / vector * vector;
    const Acc<T> scale = u.scale;
    std::fill_n(weights, first, T{});
    std::fill_n(d_scores, first, T{});
#pragma omp simd
    for (std::int32_t i = first; i < count; ++i) {
        const bool visible = (i >= first_query) & (start[i] <= key32);
        const Acc<T> exponent = scores[i] * scale - lse[i];
        const Acc<T> p = exponential(visible ? exponent : -std::numeric_limits<Acc<T>>::infinity());
        const Acc<T> d_s = p * (d_weights[i] - delta[i]) * scale;
        weights[i] = convert<T>(p);
        d_scores[i] = convert<T>(d_s);
    }
}

/// Queries [t0, t1) of one head: overwrites their d_q, adds to d_k and d_v (T, D).
template <class T>
void backward_tile(const BackwardUnit<T>& u, const BackwardScratch<T>& s, std::int64_t t0, std::int64_t t1,
                   Acc<T>* d_k, Acc<T>* d_v) {
    const std::int64_t rows = t1 - t0;
    pack(u.q, t0, t1, u.d, s.q);
    pack(u.d_o, t0, t1, u.d, s.d_o);
    for (std::int64_t i = 0; i < rows; ++i) {
        const T *o = u.o.row(t0 + i), *d_o = s.d_o + i * u.d;
        s.delta[i] = sum_over<Acc<T>>(u.d, [=](std::int64_t j, Acc<T> sum) {
            return multiply_add(convert<Acc<T>>(o[j]), convert<Acc<T>>(d_o[j]), sum);
        });
        s.start[i] = u.start ? u.start[t0 + i] : 0;
    }
    const std::int64_t first = first_key_of_tile(u.start, t0, t1);
    const Operand<T> q{s.q, u.d}, q_transposed{s.q, u.d, true}, d_o{s.d_o, u.d},
        d_o_transposed{s.d_o, u.d, true};
    for (std::int64_t k0 = first; k0 < t1; k0 += panel) {
        const std::int64_t width = std::min(panel, t1 - k0);
        const Operand<T> k{s.k + k0 * u.d, u.d}, v{s.v + k0 * u.d, u.d};
        product<T>(width, rows, u.d, k, q_transposed, s.scores, Write::overwrite);
        product<T>(width, rows, u.d, v, d_o_transposed, s.d_weights, Write::overwrite);
        for (std::int64_t j = 0; j < width; ++j) backward_row<T>(s, u, j, k0 + j, t0, rows);
        product<T>(width, u.d, rows, {s.weights, rows}, d_o, d_v + k0 * u.d, Write::accumulate);
        product<T>(width, u.d, rows, {s.d_scores, rows}, q, d_k + k0 * u.d, Write::accumulate);
        product<T>(rows, u.d, width, {s.d_scores, rows, true}, k, s.d_q,
                   k0 > first ? Write::accumulate : Write::overwrite);
    }
    for (std::int64_t i = 0; i < rows; ++i) copy_block(s.d_q + i * u.d, u.d_q.row(t0 + i), u.d);
}

template <class T>
BackwardUnit<T> backward_unit(const AttentionBackward& a, const Extents& e, std::int64_t b, std::int64_t h) {
    return {.q = head_of<T>(a.q, b, h),
            .k = head_of<T>(a.k, b, h / e.group()),
            .v = head_of<T>(a.v, b, h / e.group()),
            .o = head_of<T>(a.o, b, h),
            .d_o = head_of<T>(a.d_o, b, h),
            .d_q = head_of<T>(a.d_q, b, h),
            .lse = a.lse.data<Acc<T>>() + (b * e.h + h) * e.t,
            .start = first_keys(a.first_key, b, e),
            .d = e.d,
            .scale = static_cast<Acc<T>>(1 / std::sqrt(static_cast<double>(e.d)))};
}

/// out (T, D) of one key-value head = sum of `parts` arrays (T, D), `stride` apart, in order.
template <class T>
void write_sums(const Acc<T>* sums, std::int64_t parts, std::int64_t stride, const Extents& e, Head<T> out) {
    for (std::int64_t t = 0; t < e.t; ++t) {
        T* to = out.row(t);
#pragma omp simd
        for (std::int64_t j = 0; j < e.d; ++j) {
            Acc<T> sum = 0;
            for (std::int64_t p = 0; p < parts; ++p) sum += sums[p * stride + t * e.d + j];
            to[j] = convert<T>(sum);
        }
    }
}

template <class T>
void backward(const AttentionBackward& a, const Extents& e) {
    const BackwardParts split(e);
    // Structured bindings cannot be captured by a parallel region in clang 14.
    const std::int64_t pieces = split.pieces, parts = split.parts, units = split.units;
    const std::int64_t size = e.t * e.d;
    const std::size_t thread_bytes = backward_bytes<T>(e, parts == 1);
    Acc<T>* all_parts = nullptr;  // (B, H, pieces, 2, T, D), only where a key-value head has several parts
    if (parts > 1)
        all_parts = reinterpret_cast<Acc<T>*>(a.scratch.data<std::byte>() +
                                              static_cast<std::size_t>(omp_get_max_threads()) * thread_bytes);
    for_in_turns(units, true, [&](std::int64_t unit) {
        const std::int64_t piece = unit % pieces, h = unit / pieces % e.h, b = unit / (pieces * e.h);
        Carver mine = part_of_thread(a.scratch, thread_bytes);
        const BackwardScratch<T> s = backward_scratch<T>(mine, e, parts == 1);
        const BackwardUnit<T> u = backward_unit<T>(a, e, b, h);
        Acc<T>* d_k = parts == 1 ? s.d_k : all_parts + unit * 2 * size;
        Acc<T>* d_v = parts == 1 ? s.d_v : d_k + size;
        std::fill_n(d_k, size, Acc<T>(0));
        std::fill_n(d_v, size, Acc<T>(0));
        pack(u.k, 0, e.t, e.d, s.k);
        pack(u.v, 0, e.t, e.d, s.v);
        for (std::int64_t i = piece; i < tiles(e); i += pieces)
            backward_tile(u, s, i * tile, std::min(e.t, (i + 1) * tile), d_k, d_v);
        if (parts == 1) {
            write_sums<T>(d_k, 1, 0, e, head_of<T>(a.d_k, b, h));
            write_sums<T>(d_v, 1, 0, e, head_of<T>(a.d_v, b, h));
        }
    });
    if (parts == 1) return;
    for_shared(e.b * e.k, true, [&](std::int64_t unit) {
        const Acc<T>* sums = all_parts + unit * parts * 2 * size;
        write_sums<T>(sums, parts, 2 * size, e, head_of<T>(a.d_k, unit / e.k, unit % e.k));
        write_sums<T>(sums + size, parts, 2 * size, e, head_of<T>(a.d_v, unit / e.k, unit % e.k));
    });
}

/// The scratch of every thread, followed by the partial sums of all units.
template <class T>
std::size_t bytes_of_pass(const Extents& e) {
    const BackwardParts split(e);
    const auto threads = static_cast<std::size_t>(omp_get_max_threads());
    const std::size_t sums =
        split.parts > 1 ? static_cast<std::size_t>(split.units * 2 * e.t * e.d) * sizeof(Acc<T>) : 0;
    return threads * backward_bytes<T>(e, split.parts == 1) + sums;
}

}  // namespace

std::size_t backward_scratch_bytes(const Extents& e, DType compute) {
    std::size_t bytes = 0;
    dispatch(compute, [&]<class T>() { bytes = bytes_of_pass<T>(e); });
    return bytes;
}

}  // namespace attention

void attention_backward(const AttentionBackward& a) {
    count_kernel(__func__);
    const attention::Extents e = attention::check_backward(a);
    dispatch(a.q.dtype(), [&]<class T>() { attention::backward<T>(a, e); });
}

}  // namespace switchyard::kernels
