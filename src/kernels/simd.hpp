// Conversion of rows and an exponential that compilers vectorise. No intrinsics: `omp simd` on plain loops.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/dispatch.hpp"

namespace switchyard::kernels {

/// to[i] = from[i], rounded to nearest even.
template <class From, class To>
inline void convert_row(const From* from, To* to, std::int64_t n) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) to[i] = convert<To>(from[i]);
}

/// e^x for x <= 88, relative error below 3e-7 (2^n times a Taylor polynomial on |r| <= ln 2 / 2, remainder
/// 5e-9); arguments below -87 give about 1e-38.
inline float exp_fast(float x) {
    constexpr float log2_e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    constexpr float round_magic = 12582912.0f;  // 1.5 2^23: its addition rounds to an integer in the low bits
    x = x < -87.0f ? -87.0f : x;
    const float shifted = x * log2_e + round_magic;
    const float n = shifted - round_magic;
    const float r = (x - n * ln2_high) - n * ln2_low;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) << 23;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + exponent);
}
inline double exp_fast(double x) {
    return std::exp(x);
}

}  // namespace switchyard::kernels
