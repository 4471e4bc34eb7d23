// The forward pass in tiles of queries and panels of keys (Dao et al. 2022): products by gemm() with a
// running softmax in between. Scores are stored as queries x keys, so that most products need no transpose.
#include <cmath>
#include <limits>

#include "core/calls.hpp"
#include "core/shared_loop.hpp"
#include "kernels/cpu/attention/parts.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels {
namespace attention {
namespace {

template <class T>
struct ForwardScratch {
    T *q, *k, *v;                 // (tile, D), (T, D), (T, D): the head's rows without gaps
    Acc<T>* scores;               // (tile, panel)
    T* weights;                   // same, in the compute type; scores itself unless T is bf16
    Acc<T>*sums, *largest, *out;  // (tile), (tile), (tile, D)
};

template <class T>
ForwardScratch<T> forward_scratch(Carver& c, const Extents& e) {
    ForwardScratch<T> s{};
    s.q = c.take<T>(tile_rows(e) * e.d);
    s.k = c.take<T>(e.t * e.d);
    s.v = c.take<T>(e.t * e.d);
    s.scores = c.take<Acc<T>>(tile_rows(e) * panel_keys(e));
    if constexpr (std::is_same_v<T, Acc<T>>)
        s.weights = s.scores;
    else
        s.weights = c.take<T>(tile_rows(e) * panel_keys(e));
    s.sums = c.take<Acc<T>>(tile_rows(e));
    s.largest = c.take<Acc<T>>(tile_rows(e));
    s.out = c.take<Acc<T>>(tile_rows(e) * e.d);
    return s;
}
template <class T>
std::size_t forward_bytes(const Extents& e) {
    return bytes_of([&](Carver& c) { forward_scratch<T>(c, e); });
}

/// Replaces one row of scores by exp(scale (s - largest)) on keys [begin, end) of the panel and by zero
/// elsewhere. Updates the row's running maximum and sum; returns the factor by which earlier sums must be
/// scaled.
template <class T>
Acc<T> softmax_row(Acc<T>* scores, T* weights, std::int64_t width, std::int64_t begin, std::int64_t end,
                   Acc<T> scale, Acc<T>& largest, Acc<T>& sum) {
    if (begin >= end) {
        std::fill_n(weights, width, T{});
        return 1;
    }
    // Works on whole vectors; elements outside [begin, end) count as minus infinity.
    const std::int64_t first = begin / vector * vector,
                       last = std::min((end + vector - 1) / vector * vector, width);
    std::fill(scores + first, scores + begin, -std::numeric_limits<Acc<T>>::infinity());
    std::fill(scores + end, scores + last, -std::numeric_limits<Acc<T>>::infinity());
    const Acc<T> top = std::max(largest, maximum_of(scores + first, last - first));
    const Acc<T> total = sum_over<Acc<T>>(last - first, [=](std::int64_t j, Acc<T> sum) {
        const Acc<T> p = exponential((scores[first + j] - top) * scale);
        weights[first + j] = convert<T>(p);
        return sum + p;
    });
    std::fill(weights, weights + first, T{});
    std::fill(weights + last, weights + width, T{});
    const Acc<T> shrink = sum > 0 ? exponential((largest - top) * scale) : Acc<T>(0);
    largest = top;
    sum = sum * shrink + total;
    return shrink;
}

template <class T>
struct ForwardUnit {
    Head<T> q, k, v, o;
    Acc<T>* lse;                // (T)
    const std::int32_t* start;  // (T) or null
    std::int64_t d;
    Acc<T> scale;
};

/// Queries [t0, t1) of one head, whose keys and values are in s.
template <class T>
void forward_tile(const ForwardUnit<T>& u, const ForwardScratch<T>& s, std::int64_t t0, std::int64_t t1) {
    const std::int64_t rows = t1 - t0;
    pack(u.q, t0, t1, u.d, s.q);
    std::fill_n(s.sums, rows, Acc<T>(0));
    std::fill_n(s.largest, rows, -std::numeric_limits<Acc<T>>::infinity());
    const std::int64_t first = first_key_of_tile(u.start, t0, t1);
    for (std::int64_t k0 = first; k0 < t1; k0 += panel) {
        const std::int64_t width = std::min(panel, t1 - k0);
        product<T>(rows, width, u.d, {s.q, u.d}, {s.k + k0 * u.d, u.d, true}, s.scores, Write::overwrite);
        for (std::int64_t i = 0; i < rows; ++i) {
            const std::int64_t t = t0 + i, begin = u.start ? std::max<std::int64_t>(u.start[t] - k0, 0) : 0;
            const Acc<T> shrink =
                softmax_row<T>(s.scores + i * width, s.weights + i * width, width, begin,
                               std::min(width, t + 1 - k0), u.scale, s.largest[i], s.sums[i]);
            if (k0 > first && shrink != 1)
                for (std::int64_t j = 0; j < u.d; ++j) s.out[i * u.d + j] *= shrink;
        }
        product<T>(rows, u.d, width, {s.weights, width}, {s.v + k0 * u.d, u.d}, s.out,
                   k0 > first ? Write::accumulate : Write::overwrite);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
        const Acc<T> inverse = 1 / s.sums[i];
        T* o = u.o.row(t0 + i);
#pragma omp simd
        for (std::int64_t j = 0; j < u.d; ++j) o[j] = convert<T>(s.out[i * u.d + j] * inverse);
        u.lse[t0 + i] = s.largest[i] * u.scale + std::log(s.sums[i]);
    }
}

template <class T>
void forward(Tensor q, Tensor k, Tensor v, Tensor first_key, Tensor o, Tensor lse, Tensor scratch,
             const Extents& e) {
    const std::int64_t pieces = segments(e, 4 * omp_get_max_threads()), units = e.b * e.h * pieces;
    const std::size_t thread_bytes = forward_bytes<T>(e);
    for_in_turns(units, true, [&](std::int64_t unit) {
        const std::int64_t piece = unit % pieces, h = unit / pieces % e.h, b = unit / (pieces * e.h);
        const ForwardUnit<T> u{.q = head_of<T>(q, b, h),
                               .k = head_of<T>(k, b, h / e.group()),
                               .v = head_of<T>(v, b, h / e.group()),
                               .o = head_of<T>(o, b, h),
                               .lse = lse.data<Acc<T>>() + (b * e.h + h) * e.t,
                               .start = first_keys(first_key, b, e),
                               .d = e.d,
                               .scale = static_cast<Acc<T>>(1 / std::sqrt(static_cast<double>(e.d)))};
        Carver mine = part_of_thread(scratch, thread_bytes);
        const ForwardScratch<T> s = forward_scratch<T>(mine, e);
        pack(u.k, 0, e.t, e.d, s.k);
        pack(u.v, 0, e.t, e.d, s.v);
        for (std::int64_t i = piece; i < tiles(e); i += pieces)
            forward_tile(u, s, i * tile, std::min(e.t, (i + 1) * tile));
    });
}

}  // namespace

std::size_t forward_scratch_bytes(const Extents& e, DType compute) {
    std::size_t bytes = 0;
    dispatch(compute, [&]<class T>() { bytes = forward_bytes<T>(e); });
    return bytes * static_cast<std::size_t>(omp_get_max_threads());
}

}  // namespace attention

std::size_t attention_scratch_bytes(const Shape& q, const Shape& k, DType compute) {
    const attention::Extents e = attention::extents_of(q, k);
    return std::max(attention::forward_scratch_bytes(e, compute),
                    attention::backward_scratch_bytes(e, compute));
}

void attention_forward(Tensor q, Tensor k, Tensor v, Tensor first_key, Tensor o, Tensor lse, Tensor scratch) {
    count_kernel(__func__);
    const attention::Extents e = attention::check_forward(q, k, v, first_key, o, lse, scratch);
    dispatch(q.dtype(), [&]<class T>() { attention::forward<T>(q, k, v, first_key, o, lse, scratch, e); });
}

}  // namespace switchyard::kernels
