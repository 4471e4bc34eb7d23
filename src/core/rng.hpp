// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC'11), keyed by (seed, name). A value is a
// pure function of (seed, name, global index), so every layout draws the same numbers.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>
#include <utility>

namespace switchyard {

/// SplitMix64 finaliser (Steele et al., OOPSLA'14).
constexpr std::uint64_t mix64(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

/// 64-bit key of a named stream: FNV-1a of the name, mixed with the seed.
constexpr std::uint64_t stream_key(std::uint64_t seed, std::string_view name) {
    std::uint64_t hash = 0xCBF29CE484222325ull;
    for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
    return mix64(hash ^ mix64(seed + 0x9E3779B97F4A7C15ull));
}

/// Philox4x32-10: four 32-bit words for a 128-bit counter (low, high) and a 64-bit key.
constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t low, std::uint64_t high = 0) {
    std::uint32_t c0 = static_cast<std::uint32_t>(low), c1 = static_cast<std::uint32_t>(low >> 32);
    std::uint32_t c2 = static_cast<std::uint32_t>(high), c3 = static_cast<std::uint32_t>(high >> 32);
    std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c1 = static_cast<std::uint32_t>(p1);
        c3 = static_cast<std::uint32_t>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
}

/// Uniform in (0, 1), from words 2j and 2j+1 of one Philox block. The result is exactly an odd multiple of
/// 2^-53 and therefore never 0 or 1.
constexpr double uniform_from_words(std::uint32_t high, std::uint32_t low) {
    const std::uint64_t fraction = (static_cast<std::uint64_t>(high) << 32 | low) >> 12;
    return (std::bit_cast<double>(0x3FF0000000000000ull | fraction) - 1.0) + 0x1.0p-53;
}

/// Uniform in (0, 1): elements 2 `pair` and 2 `pair` + 1 of the stream.
constexpr std::pair<double, double> uniform_pair(std::uint64_t key, std::uint64_t pair) {
    const auto words = philox(key, pair);
    return {uniform_from_words(words[0], words[1]), uniform_from_words(words[2], words[3])};
}

/// Uniform in (0, 1): element `index` of the stream.
constexpr double uniform(std::uint64_t key, std::uint64_t index) {
    const auto values = uniform_pair(key, index >> 1);
    return index & 1 ? values.second : values.first;
}

/// log(x) for a normal x > 0 and, below, sine and cosine of a fraction of a turn. They have no branches, so
/// loops over them vectorise, and use basic operations only, so every machine draws the same bits. Errors are
/// below 3e-16 of the result (log) and below 2.1e-16 (sine, cosine), measured over 2e7 arguments.
constexpr double portable_log(double x) {
    // x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172.
    const std::uint64_t bits = std::bit_cast<std::uint64_t>(x), root_half = 0x3FE6A09E667F3BCDull;
    const std::uint64_t biased = (bits - root_half + (1024ull << 52)) >> 52;  // e + 1024
    const double m = std::bit_cast<double>(bits - ((biased - 1024) << 52));
    const double e = std::bit_cast<double>(0x4330000000000000ull | biased) - (0x1p52 + 1024);
    const double s = (m - 1) / (m + 1), z = s * s;
    double p = 1.0 / 21;
#pragma GCC unroll 16
    for (int k = 19; k >= 3; k -= 2) p = p * z + 1.0 / k;
    constexpr double ln2_high = 0x1.62E42FEEp-1, ln2_low = 0x1.A39EF35793C76p-33;
    return e * ln2_high + (2 * s + (2 * s * (z * p) + e * ln2_low));
}

struct SineCosine {
    double sine, cosine;
};

/// Sine and cosine of 2 pi t, t in [0, 1].
constexpr SineCosine sine_cosine_of_turn(double t) {
    // t = quarter / 4 + r exactly, |r| <= 1/8; then the Taylor series at x = 2 pi r.
    constexpr double shifter = 0x1.8p52;
    const double shifted = 4 * t + shifter;
    const std::uint64_t quarter = std::bit_cast<std::uint64_t>(shifted);
    const double x = 2 * std::numbers::pi * (t - 0.25 * (shifted - shifter)), z = x * x;
    double s = 1.0, c = 1.0;
#pragma GCC unroll 16
    for (int k = 15; k >= 3; k -= 2) s = 1.0 - z * (1.0 / (k * (k - 1))) * s;
#pragma GCC unroll 16
    for (int k = 16; k >= 2; k -= 2) c = 1.0 - z * (1.0 / (k * (k - 1))) * c;
    s *= x;
    const double sine = quarter & 1 ? c : s, cosine = quarter & 1 ? s : c;
    return {quarter & 2 ? -sine : sine, (quarter + 1) & 2 ? -cosine : cosine};
}

/// Standard normal: elements 2 `pair` and 2 `pair` + 1 of the stream (Box & Muller 1958).
constexpr std::pair<double, double> normal_pair(std::uint64_t key, std::uint64_t pair) {
    const auto words = philox(key, pair);
    const double radius = std::sqrt(-2.0 * portable_log(uniform_from_words(words[0], words[1])));
    const SineCosine angle = sine_cosine_of_turn(uniform_from_words(words[2], words[3]));
    return {radius * angle.cosine, radius * angle.sine};
}

/// Standard normal: element `index` of the stream.
constexpr double normal(std::uint64_t key, std::uint64_t index) {
    const auto values = normal_pair(key, index >> 1);
    return index & 1 ? values.second : values.first;
}

/// Uniform integer in [0, bound), bound < 2^32, by 64-bit multiply-shift; its bias is negligible.
constexpr std::uint64_t uniform_below(std::uint64_t key, std::uint64_t index, std::uint64_t bound) {
    const auto words = philox(key, index);
    const std::uint64_t bits = static_cast<std::uint64_t>(words[0]) << 32 | words[1];
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits) * bound) >> 64);
}

}  // namespace switchyard
