// Private to the CPU kernels: conversions, and loops over blocks. Inner loops are free functions over
// pointers, so that they vectorise. Sums run in blocks whose bounds do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/bf16.hpp"
#include "core/shared_loop.hpp"
#include "core/tensor.hpp"
#include "kernels/checks/tensors.hpp"

namespace switchyard::kernels {

/// Type that elements of type T are computed in.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

inline float load(float x) {
    return x;
}
inline double load(double x) {
    return x;
}
inline float load(bf16 x) {
    return to_f32(x);
}

/// f64 to bf16 with one rounding: the f32 in between is sticky (its last bit tells that something was cut
/// off), then it is rounded.
inline bf16 to_bf16(double x) {
    const float nearest = static_cast<float>(x);
    std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest);
    const double back = static_cast<double>(nearest);
    const bool rounded_up = std::fabs(back) > std::fabs(x), rounded_down = std::fabs(back) < std::fabs(x);
    const bool tie = (bits & 0xFFFFu) == 0x8000u;  // only in a tie do the cut-off bits decide
    bits += tie && rounded_down ? 1u : 0u;
    bits -= tie && rounded_up ? 1u : 0u;
    return switchyard::to_bf16(std::bit_cast<float>(bits));
}

template <class To, class From>
inline To convert(From x) {
    if constexpr (std::is_same_v<To, From>)
        return x;
    else if constexpr (std::is_same_v<From, bf16>)
        return static_cast<To>(load(x));
    else if constexpr (!std::is_same_v<To, bf16>)
        return static_cast<To>(x);
    else if constexpr (std::is_same_v<From, float>)
        return switchyard::to_bf16(x);
    else
        return kernels::to_bf16(x);
}

/// to[i] = from[i], rounded to nearest even.
template <class From, class To>
inline void copy_block(const From* from, To* to, std::int64_t n) {
    if constexpr (std::is_same_v<From, To>) {
        if (n > 0 && from != to) std::memmove(to, from, static_cast<std::size_t>(n) * sizeof(To));
    } else {
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) to[i] = convert<To>(load(from[i]));
    }
}

/// a b + c, with one rounding if the machine has a fused multiply-add.
inline float multiply_add(float a, float b, float c) {
#ifdef __FMA__
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}
inline double multiply_add(double a, double b, double c) {
#ifdef __FMA__
    return __builtin_fma(a, b, c);
#else
    return a * b + c;
#endif
}

/// Elements per unit of work: 16 KiB of f32.
inline constexpr std::int64_t block_size = 4096;
/// Loops over fewer elements stay on one thread.
inline constexpr std::int64_t parallel_elements = 4 * block_size;

inline std::int64_t num_blocks(std::int64_t n) {
    return (n + block_size - 1) / block_size;
}

/// f(begin, end) for each block of [0, n), on all threads.
template <class F>
void for_blocks(std::int64_t n, const F& f) {
    const std::int64_t blocks = num_blocks(n);
    for_shared(blocks, n > parallel_elements,
               [&f, n](std::int64_t b) { f(b * block_size, std::min(n, (b + 1) * block_size)); });
}

/// f(row, begin, end) for each block of columns [0, width) of each row, on all threads.
template <class F>
void for_row_blocks(std::int64_t rows, std::int64_t width, const F& f) {
    const std::int64_t per_row = num_blocks(width), units = rows * per_row;
    for_shared(units, rows * width > parallel_elements, [&f, per_row, width](std::int64_t u) {
        const std::int64_t begin = u % per_row * block_size;
        f(u / per_row, begin, std::min(width, begin + block_size));
    });
}

/// f(row) for each row of `width` elements, on all threads.
template <class F>
void for_rows(std::int64_t rows, std::int64_t width, const F& f) {
    for_shared(rows, rows * width > parallel_elements, f);
}

/// The number of elements by which loops over streams from memory prefetch.
inline constexpr std::int64_t prefetch_distance = 256;

/// Prefetches the cache lines of x (n), for writing if `write`; x may lie outside its array.
template <bool write = false, class T>
inline void prefetch(const T* x, std::int64_t n) {
    for (std::int64_t i = 0; i < n; i += 64 / static_cast<std::int64_t>(sizeof(T)))
        __builtin_prefetch(x + i, write);
}

/// f(begin, end) for strips of [0, n) in order, with prefetches for every stream: without them, loops can
/// reach only half of the memory's bandwidth.
template <class F, class... T>
inline void for_strips(std::int64_t n, F f, const T*... streams) {
    constexpr std::int64_t strip = 128;
    for (std::int64_t begin = 0; begin < n; begin += strip) {
        (prefetch(streams + begin + prefetch_distance, strip), ...);
        f(begin, std::min(n, begin + strip));
    }
}

}  // namespace switchyard::kernels
