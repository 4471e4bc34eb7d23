// Private to the CPU kernels: branch-free elementary functions that compilers vectorise without relaxed
// arithmetic.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {

/// e^x in f32 for x <= 87, within 1 unit in the last place (with fused multiply-add); 0 below -87, where
/// results would be subnormal; NaN for NaN. x = k ln 2 + r, |r| <= ln 2 / 2 (Cody & Waite); (e^r - 1 - r) /
/// r^2 is interpolated at the five Chebyshev nodes of that interval.
inline float exponential(float x) {
    constexpr float log2_e = 1.44269504f, ln2_high = 0.693145752f, ln2_low = 1.42860677e-6f;
    constexpr float shifter =
        12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the last bits
    const float shifted = multiply_add(x, log2_e, shifter);
    const float k = shifted - shifter;
    float r = multiply_add(k, -ln2_high, x);
    r = multiply_add(k, -ln2_low, r);
    float p = 1.39261836e-3f;
    p = multiply_add(p, r, 8.36317905e-3f);
    p = multiply_add(p, r, 4.16665546e-2f);
    p = multiply_add(p, r, 1.66665770e-1f);
    p = multiply_add(p, r, 0.5f);
    p = multiply_add(p, r, 1.0f);
    p = multiply_add(p, r, 1.0f);
    const std::uint32_t scaled =
        std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23);  // p 2^k
    return x < -87.0f ? 0.0f : std::bit_cast<float>(scaled);
}

inline double exponential(double x) {
    return std::exp(x);
}

/// 1 / (1 + e^-x).
template <class X>
X sigmoid(X x) {
    const X e = exponential(-std::fabs(x));
    return (x < 0 ? e : X(1)) / (1 + e);
}

/// Running results side by side, because a compiler does not reorder floating-point operations by itself.
/// Their number fixes the order for every vector width.
constexpr std::int64_t lanes = 32;

/// Combines part(0) ... part(lanes - 1) by halves, with a sum or another operation on two.
template <class X, class F>
X fold_lanes(X* part, F combine) {
    for (std::int64_t width = lanes / 2; width > 0; width /= 2) {
#pragma omp simd
        for (std::int64_t l = 0; l < width; ++l) part[l] = combine(part[l], part[l + width]);
    }
    return part[0];
}

/// Reduces elements 0 ... n - 1: lane l starts from `start` and applies add(j, lane) for j = l, l + lanes,
/// ...; then the lanes are combined. `streams` are what `add` reads from memory rather than cache.
template <class X, class Add, class Combine, class... T>
X reduce(std::int64_t n, X start, Add add, Combine combine, const T*... streams) {
    X part[lanes];
    std::fill_n(part, lanes, start);
    const std::int64_t whole = n / lanes * lanes;
    for (std::int64_t j = 0; j < whole; j += lanes) {
        (prefetch(streams + j + prefetch_distance, lanes), ...);
#pragma omp simd
        for (std::int64_t l = 0; l < lanes; ++l) part[l] = add(j + l, part[l]);
    }
#pragma omp simd
    for (std::int64_t l = 0; l < n - whole; ++l) part[l] = add(whole + l, part[l]);
    return fold_lanes(part, combine);
}

/// Sum over n elements; add(j, sum) returns `sum` plus element j.
template <class X, class Add, class... T>
X sum_over(std::int64_t n, Add add, const T*... streams) {
    return reduce(
        n, X(0), add, [](X a, X b) { return a + b; }, streams...);
}

/// Maximum of x (n); minus infinity if n is 0.
template <class T>
Wide<T> maximum_of(const T* x, std::int64_t n) {
    const auto larger = [](Wide<T> a, Wide<T> b) { return b > a ? b : a; };
    return reduce(
        n, -std::numeric_limits<Wide<T>>::infinity(),
        [=](std::int64_t j, Wide<T> best) { return larger(best, load(x[j])); }, larger, x);
}

}  // namespace switchyard::kernels
