// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC'11), keyed by (seed, name). A value is a
// pure function of (seed, name, global index), so every layout draws the same numbers.
#pragma once

#include <array>
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
inline std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t low, std::uint64_t high = 0) {
    std::uint32_t c0 = static_cast<std::uint32_t>(low), c1 = static_cast<std::uint32_t>(low >> 32);
    std::uint32_t c2 = static_cast<std::uint32_t>(high), c3 = static_cast<std::uint32_t>(high >> 32);
    std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
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

/// Uniform in (0, 1), from words 2j and 2j+1 of one Philox block. With 52 bits nothing is rounded, so 1 is
/// never drawn.
inline double uniform_from_words(std::uint32_t high, std::uint32_t low) {
    const std::uint64_t bits = (static_cast<std::uint64_t>(high) << 32 | low) >> 12;
    return (static_cast<double>(bits) + 0.5) * 0x1.0p-52;
}

/// Uniform in (0, 1): elements 2 `pair` and 2 `pair` + 1 of the stream.
inline std::pair<double, double> uniform_pair(std::uint64_t key, std::uint64_t pair) {
    const auto words = philox(key, pair);
    return {uniform_from_words(words[0], words[1]), uniform_from_words(words[2], words[3])};
}

/// Uniform in (0, 1): element `index` of the stream.
inline double uniform(std::uint64_t key, std::uint64_t index) {
    const auto values = uniform_pair(key, index >> 1);
    return index & 1 ? values.second : values.first;
}

/// Standard normal: elements 2 `pair` and 2 `pair` + 1 of the stream (Box & Muller 1958).
inline std::pair<double, double> normal_pair(std::uint64_t key, std::uint64_t pair) {
    const auto words = philox(key, pair);
    const double radius = std::sqrt(-2.0 * std::log(uniform_from_words(words[0], words[1])));
    const double angle = 2.0 * std::numbers::pi * uniform_from_words(words[2], words[3]);
    return {radius * std::cos(angle), radius * std::sin(angle)};
}

/// Standard normal: element `index` of the stream.
inline double normal(std::uint64_t key, std::uint64_t index) {
    const auto values = normal_pair(key, index >> 1);
    return index & 1 ? values.second : values.first;
}

/// Uniform integer in [0, bound), bound < 2^32, without noticeable bias (64-bit multiply-shift).
inline std::uint64_t uniform_below(std::uint64_t key, std::uint64_t index, std::uint64_t bound) {
    const auto words = philox(key, index);
    const std::uint64_t bits = static_cast<std::uint64_t>(words[0]) << 32 | words[1];
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits) * bound) >> 64);
}

}  // namespace switchyard
