// What both passes of attention share. A unit of work first copies its head's rows side by side, because
// products lose half their speed to the gaps between them. Partial sums are cut by shapes alone and added in
// a fixed order, so the bits do not depend on the number of threads. Private to the CPU back end.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstddef>

#include "kernels/attention_sizes.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "kernels/cpu/gemm.hpp"
#include "kernels/matmul.hpp"

namespace switchyard::kernels::attention {

inline constexpr std::int64_t tile = 128;   // queries of one unit of work
inline constexpr std::int64_t panel = 512;  // keys whose scores exist at a time
inline constexpr std::int32_t vector = 16;  // elements that are masked together

inline std::int64_t tiles(const Extents& e) {
    return (e.t + tile - 1) / tile;
}
/// Rows of the longest tile.
inline std::int64_t tile_rows(const Extents& e) {
    return std::min(tile, e.t);
}
/// Keys of the widest panel.
inline std::int64_t panel_keys(const Extents& e) {
    return std::min(panel, e.t);
}

/// The first visible keys (T) of one sequence, or null.
inline const std::int32_t* first_keys(Tensor first_key, std::int64_t b, const Extents& e) {
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
using Acc = Wide<T>;
template <class T>
inline constexpr DType dtype_of = std::is_same_v<T, double>  ? DType::f64
                                  : std::is_same_v<T, float> ? DType::f32
                                                             : DType::bf16;

/// One operand of a product: pointer, row stride, and whether it is read transposed.
template <class X>
struct Operand {
    const X* data;
    std::int64_t stride;
    bool transposed = false;
};

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
                 .in = dtype_of<T>,
                 .out = dtype_of<Acc<T>>,
                 .accumulate = write == Write::accumulate};
    gemm(g, a.data, b.data, c);
}

/// The first key that a query of [t0, t1) sees, rounded down to a multiple of 64 so that few distinct shapes
/// occur.
inline std::int64_t first_key_of_tile(const std::int32_t* start, std::int64_t t0, std::int64_t t1) {
    if (!start) return 0;
    return *std::min_element(start + t0, start + t1) / 64 * 64;
}

/// The number of segments into which the tiles of a head are cut. Each segment is a unit of work, so that few
/// heads still make `wanted` units.
inline std::int64_t segments(const Extents& e, std::int64_t wanted) {
    return std::clamp<std::int64_t>(wanted / std::max<std::int64_t>(e.b * e.h, 1), 1, tiles(e));
}

/// Copies rows [t0, t1) of a head without the gaps between them, because rows a power of two apart share few
/// cache lines.
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

/// The calling thread's part of a scratch that begins with `thread_bytes` for each thread.
inline Carver part_of_thread(Tensor scratch, std::size_t thread_bytes) {
    return Carver(scratch.data<std::byte>() + static_cast<std::size_t>(omp_get_thread_num()) * thread_bytes);
}

/// The number of bytes that `layout(Carver&)` takes.
template <class F>
std::size_t bytes_of(F layout) {
    Carver counter(nullptr);
    layout(counter);
    return counter.used();
}

/// Scratch of one pass, for all threads.
std::size_t forward_scratch_bytes(const Extents&, DType);
std::size_t backward_scratch_bytes(const Extents&, DType);

}  // namespace switchyard::kernels::attention
