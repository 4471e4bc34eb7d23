// bf16 on the host: the upper half of an f32. Kernels, reductions and I/O use these conversions.
#pragma once

#include <bit>
#include <cstdint>

namespace switchyard {

struct bf16 {
    std::uint16_t bits = 0;
};

inline float to_f32(bf16 x) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

/// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
inline bf16 to_bf16(float x) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
    const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    return {
        static_cast<std::uint16_t>((nan ? bits | 0x400000u : rounded) >> 16)};  // one narrowing: vectorises
}

}  // namespace switchyard
