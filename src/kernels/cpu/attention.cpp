// Attention in tiles of queries and panels of keys (Dao et al. 2022), products by gemm(), softmax in between.
// A unit of work copies its head's rows side by side first: products lose half their speed to the gaps
// between them. Partial sums are cut by shapes alone and added in a fixed order: the bits do not depend on
// the number of threads. Forward scores lie queries x keys, backward scores keys x queries, so that most
// products need no transpose.
#include "kernels/attention.hpp"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "core/first_exception.hpp"
#include "kernels/cpu/gemm.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels {
namespace {

constexpr std::int64_t tile = 128;   // queries of one unit of work
constexpr std::int64_t panel = 512;  // keys whose scores exist at a time
constexpr std::int32_t vector = 16;  // elements that are masked together

struct Extents {
    std::int64_t b, t, h, k, d;
    std::int64_t tiles() const { return (t + tile - 1) / tile; }
    std::int64_t group() const { return h / k; }
};

Extents extents_of(const Shape& q, const Shape& k) {
    internal_check(q.rank() == 4 && k.rank() == 4 && k[0] == q[0] && k[1] == q[1] && k[3] == q[3] &&
                       k[2] > 0 && q[2] % k[2] == 0,
                   "attention: q {}, k {}", q, k);
    return {q[0], q[1], q[2], k[2], q[3]};
}

Extents extents(Tensor q, Tensor k, Tensor v, Tensor first_key, Tensor lse) {
    const Extents e = extents_of(q.shape(), k.shape());
    internal_check(k.shape() == v.shape() && q.dtype() == k.dtype() && q.dtype() == v.dtype() &&
                       lse.dtype() == accumulate_type(q.dtype()) && lse.shape() == Shape({e.b, e.h, e.t}),
                   "attention: q {} {}, k {} {}, v {} {}, lse {} {}", q.shape(), name_of(q.dtype()),
                   k.shape(), name_of(k.dtype()), v.shape(), name_of(v.dtype()), lse.shape(),
                   name_of(lse.dtype()));
    internal_check(
        first_key.empty() || (first_key.dtype() == DType::i32 &&
                              (first_key.shape() == Shape({e.t}) || first_key.shape() == Shape({e.b, e.t}))),
        "attention: first_key {}", first_key.shape());
    return e;
}

/// (T) of one sequence, or null.
const std::int32_t* first_keys(Tensor first_key, std::int64_t b, const Extents& e) {
    if (first_key.empty()) return nullptr;
    return first_key.data<std::int32_t>() + (first_key.shape().rank() == 1 ? 0 : b * e.t);
}

/// One head's (T, D) matrix in a (B, T, heads, D) tensor.
template <class X>
struct Head {
    X* data;
    std::int64_t stride;
    X* row(std::int64_t t) const { return data + t * stride; }
};
template <class X>
Head<X> head_of(Tensor x, std::int64_t b, std::int64_t head) {
    const std::int64_t heads = x.dim(2), d = x.dim(3);
    return {x.data<X>() + b * x.dim(1) * heads * d + head * d, heads * d};
}

template <class T>
struct Types;
template <>
struct Types<float> {
    using Acc = float;
    static constexpr DType in = DType::f32, acc = DType::f32;
};
template <>
struct Types<bf16> {
    using Acc = float;
    static constexpr DType in = DType::bf16, acc = DType::f32;
};
template <>
struct Types<double> {
    using Acc = double;
    static constexpr DType in = DType::f64, acc = DType::f64;
};
template <class T>
using Acc = typename Types<T>::Acc;

/// A matrix of a product: pointer, row stride, and whether it is read transposed.
template <class X>
struct Operand {
    const X* data;
    std::int64_t stride;
    bool transposed = false;
};

enum class Write { overwrite, add };

/// c (m, n) in accumulate_type = or += a (m, k) b (k, n).
template <class T>
void product(std::int64_t m, std::int64_t n, std::int64_t k, Operand<T> a, Operand<T> b, Acc<T>* c,
             Write write) {
    const Gemm g{.m = m,
                 .n = n,
                 .k = k,
                 .a_row = a.transposed ? 1 : a.stride,
                 .a_col = a.transposed ? a.stride : 1,
                 .b_row = b.transposed ? 1 : b.stride,
                 .b_col = b.transposed ? b.stride : 1,
                 .c_row = n,
                 .in = Types<T>::in,
                 .out = Types<T>::acc,
                 .accumulate = write == Write::add};
    gemm(g, a.data, b.data, c);
}

/// First key that a query of [t0, t1) sees, rounded down to a multiple of 64 (few distinct shapes).
std::int64_t first_key_of_tile(const std::int32_t* start, std::int64_t t0, std::int64_t t1) {
    if (!start) return 0;
    return *std::min_element(start + t0, start + t1) / 64 * 64;
}

/// Segments of a head's tiles, each a unit of work, so that few heads still make `wanted` units.
std::int64_t segments(const Extents& e, std::int64_t wanted) {
    return std::clamp<std::int64_t>(wanted / std::max<std::int64_t>(e.b * e.h, 1), 1, e.tiles());
}

/// Rows [t0, t1) of a head without the gaps between them: rows a power of two apart share few cache lines.
template <class X, class T>
void pack(Head<X> from, std::int64_t t0, std::int64_t t1, std::int64_t d, T* to) {
    for (std::int64_t t = t0; t < t1; ++t) copy_block(from.row(t), to + (t - t0) * d, d);
}

/// Carves aligned arrays out of scratch; with a null start it only counts.
class Carver {
  public:
    explicit Carver(std::byte* start) : start_(start) {}
    template <class X>
    X* take(std::int64_t count) {
        std::byte* at = start_ ? start_ + used_ : nullptr;
        used_ += (static_cast<std::size_t>(count) * sizeof(X) + 63) / 64 * 64;
        return reinterpret_cast<X*>(at);
    }
    std::size_t used() const { return used_; }

  private:
    std::byte* start_;
    std::size_t used_ = 0;
};

/// What is the calling thread's of a scratch that begins with `thread_bytes` for each thread.
Carver part_of_thread(Tensor scratch, std::size_t thread_bytes) {
    return Carver(scratch.data<std::byte>() + static_cast<std::size_t>(omp_get_thread_num()) * thread_bytes);
}

/// Bytes of what `layout(Carver&)` takes.
template <class F>
std::size_t bytes_of(F layout) {
    Carver counter(nullptr);
    layout(counter);
    return counter.used();
}

// ---------------------------------------------------------------------------------------------- forward

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
    s.q = c.take<T>(tile * e.d);
    s.k = c.take<T>(e.t * e.d);
    s.v = c.take<T>(e.t * e.d);
    s.scores = c.take<Acc<T>>(tile * panel);
    if constexpr (std::is_same_v<T, Acc<T>>)
        s.weights = s.scores;
    else
        s.weights = c.take<T>(tile * panel);
    s.sums = c.take<Acc<T>>(tile);
    s.largest = c.take<Acc<T>>(tile);
    s.out = c.take<Acc<T>>(tile * e.d);
    return s;
}
template <class T>
std::size_t forward_bytes(const Extents& e) {
    return bytes_of([&](Carver& c) { forward_scratch<T>(c, e); });
}

/// One row of scores becomes exp(scale (s - largest)) on keys [begin, end) of the panel, zero elsewhere.
/// Updates the row's running maximum and sum; returns the factor by which what was summed before shrinks.
template <class T>
Acc<T> softmax_row(Acc<T>* scores, T* weights, std::int64_t width, std::int64_t begin, std::int64_t end,
                   Acc<T> scale, Acc<T>& largest, Acc<T>& sum) {
    if (begin >= end) {
        std::fill_n(weights, width, T{});
        return 1;
    }
    // In whole vectors: what they hold beyond [begin, end) counts as minus infinity.
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

/// Queries [t0, t1) of one head, whose keys and values lie in s.
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
                   k0 > first ? Write::add : Write::overwrite);
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
    FirstException failure;
    const auto work = [&](std::int64_t unit) {
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
        for (std::int64_t i = piece; i < e.tiles(); i += pieces)
            forward_tile(u, s, i * tile, std::min(e.t, (i + 1) * tile));
    };
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t unit = 0; unit < units; ++unit) failure.guard([&] { work(unit); });
    failure.rethrow();
}

// ---------------------------------------------------------------------------------------------- backward

template <class T>
struct BackwardScratch {
    T *q, *d_o, *k, *v;         // (tile, D), (tile, D), (T, D), (T, D): the head's rows without gaps
    Acc<T>*scores, *d_weights;  // (panel, tile): keys x queries
    T *weights, *d_scores;      // same, in the compute type; scores and d_weights themselves unless T is bf16
    Acc<T>*delta, *d_q;         // (tile), (tile, D)
    std::int32_t* start;        // (tile)
    Acc<T>*d_k, *d_v;           // (T, D): this unit's sums, unless they go to a part of their own
};

template <class T>
BackwardScratch<T> backward_scratch(Carver& c, const Extents& e, bool with_sums) {
    BackwardScratch<T> s{};
    s.q = c.take<T>(tile * e.d);
    s.d_o = c.take<T>(tile * e.d);
    s.k = c.take<T>(e.t * e.d);
    s.v = c.take<T>(e.t * e.d);
    s.scores = c.take<Acc<T>>(panel * tile);
    s.d_weights = c.take<Acc<T>>(panel * tile);
    if constexpr (std::is_same_v<T, Acc<T>>) {
        s.weights = s.scores;
        s.d_scores = s.d_weights;
    } else {
        s.weights = c.take<T>(panel * tile);
        s.d_scores = c.take<T>(panel * tile);
    }
    s.delta = c.take<Acc<T>>(tile);
    s.d_q = c.take<Acc<T>>(tile * e.d);
    s.start = c.take<std::int32_t>(tile);
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

/// Units of work of a backward pass, and how many sums there are of a key-value head's d_k and d_v: one per
/// query head of its group and segment. Whatever the number of threads: it decides partial sums.
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

/// weights = exp(scale s - lse), d_scores = scale weights (d_weights - delta), where key `key` is visible to
/// query t0 + i, zero elsewhere: one key, all queries of a tile.
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
    const Operand<T> q{s.q, u.d}, q_turned{s.q, u.d, true}, d_o{s.d_o, u.d}, d_o_turned{s.d_o, u.d, true};
    for (std::int64_t k0 = first; k0 < t1; k0 += panel) {
        const std::int64_t width = std::min(panel, t1 - k0);
        const Operand<T> k{s.k + k0 * u.d, u.d}, v{s.v + k0 * u.d, u.d};
        product<T>(width, rows, u.d, k, q_turned, s.scores, Write::overwrite);
        product<T>(width, rows, u.d, v, d_o_turned, s.d_weights, Write::overwrite);
        for (std::int64_t j = 0; j < width; ++j) backward_row<T>(s, u, j, k0 + j, t0, rows);
        product<T>(width, u.d, rows, {s.weights, rows}, d_o, d_v + k0 * u.d, Write::add);
        product<T>(width, u.d, rows, {s.d_scores, rows}, q, d_k + k0 * u.d, Write::add);
        product<T>(rows, u.d, width, {s.d_scores, rows, true}, k, s.d_q,
                   k0 > first ? Write::add : Write::overwrite);
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
    const auto [pieces, parts, units] = BackwardParts(e);
    const std::int64_t size = e.t * e.d;
    const std::size_t thread_bytes = backward_bytes<T>(e, parts == 1);
    Acc<T>* all_parts = nullptr;  // (B, H, pieces, 2, T, D), only where a key-value head has several parts
    if (parts > 1)
        all_parts = reinterpret_cast<Acc<T>*>(a.scratch.data<std::byte>() +
                                              static_cast<std::size_t>(omp_get_max_threads()) * thread_bytes);
    FirstException failure;
    const auto work = [&, pieces = pieces, parts = parts](std::int64_t unit) {
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
        for (std::int64_t i = piece; i < e.tiles(); i += pieces)
            backward_tile(u, s, i * tile, std::min(e.t, (i + 1) * tile), d_k, d_v);
        if (parts == 1) {
            write_sums<T>(d_k, 1, 0, e, head_of<T>(a.d_k, b, h));
            write_sums<T>(d_v, 1, 0, e, head_of<T>(a.d_v, b, h));
        }
    };
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t unit = 0; unit < units; ++unit) failure.guard([&] { work(unit); });
    failure.rethrow();
    if (parts == 1) return;
#pragma omp parallel for schedule(static)
    for (std::int64_t unit = 0; unit < e.b * e.k; ++unit) {
        const Acc<T>* sums = all_parts + unit * parts * 2 * size;
        write_sums<T>(sums, parts, 2 * size, e, head_of<T>(a.d_k, unit / e.k, unit % e.k));
        write_sums<T>(sums + size, parts, 2 * size, e, head_of<T>(a.d_v, unit / e.k, unit % e.k));
    }
}

template <class T>
std::size_t scratch_bytes(const Extents& e) {
    const BackwardParts split(e);
    const auto threads = static_cast<std::size_t>(omp_get_max_threads());
    const std::size_t sums =
        split.parts > 1 ? static_cast<std::size_t>(split.units * 2 * e.t * e.d) * sizeof(Acc<T>) : 0;
    return threads * std::max(forward_bytes<T>(e), backward_bytes<T>(e, split.parts == 1)) + sums;
}

/// Calls f.operator()<T>() for a compute type.
template <class F>
auto for_type(DType dtype, F&& f) {
    switch (dtype) {
        case DType::f32:
            return f.template operator()<float>();
        case DType::bf16:
            return f.template operator()<bf16>();
        case DType::f64:
            return f.template operator()<double>();
        default:
            throw InternalError(fmt::format("internal error: attention in {}", name_of(dtype)));
    }
}

void check_scratch(Tensor scratch, Tensor q, Tensor k) {
    const std::size_t needed = attention_scratch_bytes(q.shape(), k.shape(), q.dtype());
    internal_check(scratch.bytes() >= needed && (needed == 0 || scratch.raw() != nullptr),
                   "attention: scratch of {} bytes where {} are needed", scratch.bytes(), needed);
}

}  // namespace

std::size_t attention_scratch_bytes(const Shape& q, const Shape& k, DType compute) {
    const Extents e = extents_of(q, k);
    return for_type(compute, [&]<class T>() { return scratch_bytes<T>(e); });
}

void attention_forward(Tensor q, Tensor k, Tensor v, Tensor first_key, Tensor o, Tensor lse, Tensor scratch) {
    count_kernel(__func__);
    const Extents e = extents(q, k, v, first_key, lse);
    internal_check(o.shape() == q.shape() && o.dtype() == q.dtype(), "attention: o {}", o.shape());
    check_scratch(scratch, q, k);
    for_type(q.dtype(), [&]<class T>() { forward<T>(q, k, v, first_key, o, lse, scratch, e); });
}

void attention_backward(const AttentionBackward& a) {
    count_kernel(__func__);
    const Extents e = extents(a.q, a.k, a.v, a.first_key, a.lse);
    internal_check(a.o.shape() == a.q.shape() && a.d_o.shape() == a.q.shape() &&
                       a.d_q.shape() == a.q.shape() && a.d_k.shape() == a.k.shape() &&
                       a.d_v.shape() == a.k.shape(),
                   "attention: o {}, d_o {}, d_q {}, d_k {}, d_v {} for q {}", a.o.shape(), a.d_o.shape(),
                   a.d_q.shape(), a.d_k.shape(), a.d_v.shape(), a.q.shape());
    for (const Tensor& x : {a.o, a.d_o, a.d_q, a.d_k, a.d_v})
        internal_check(x.dtype() == a.q.dtype(), "attention: {} with q {}", name_of(x.dtype()),
                       name_of(a.q.dtype()));
    check_scratch(a.scratch, a.q, a.k);
    for_type(a.q.dtype(), [&]<class T>() { backward<T>(a, e); });
}

}  // namespace switchyard::kernels
