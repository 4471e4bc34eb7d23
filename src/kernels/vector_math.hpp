// Private to the CPU kernels: branch-free elementary functions that compilers vectorise without relaxed
// arithmetic.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/dispatch.hpp"

namespace switchyard::kernels {

/// e^x in f32, within 1 unit in the last place (with fused multiply-add) where the result is normal; 0 and
/// infinity beyond the range, NaN for NaN. x = k ln 2 + r, |r| <= ln 2 / 2 (Cody & Waite); (e^r - 1 - r) /
/// r^2 is interpolated at the five Chebyshev nodes of that interval.
inline float exponential(float x) {
    constexpr float log2_e = 1.44269504f, ln2_high = 0.693145752f, ln2_low = 1.42860677e-6f;
    constexpr float shifter =
        12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the last bits
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
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
    // 2^k in two factors, as k may lie outside the exponents of normal numbers.
    const auto whole = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(shifted) -
                                                 std::bit_cast<std::uint32_t>(shifter));
    const std::int32_t half = whole >> 1;
    const float first = std::bit_cast<float>(static_cast<std::uint32_t>(half + 127) << 23);
    const float second = std::bit_cast<float>(static_cast<std::uint32_t>(whole - half + 127) << 23);
    return p * first * second;
}

inline double exponential(double x) {
    return std::exp(x);
}

}  // namespace switchyard::kernels
