// Hash of the bits of an array, element by element as its definition says (kernels/hash.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/rng.hpp"

namespace switchyard::reference {

/// Of `size` elements of `element` bytes.
inline std::uint64_t hash_bits(const std::byte* elements, std::int64_t size, std::size_t element) {
    std::uint64_t sum = 0;
    for (std::int64_t i = 0; i < size; ++i) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, elements + static_cast<std::size_t>(i) * element, element);
        sum += mix64(static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15ull + bits);
    }
    return sum;
}

}  // namespace switchyard::reference
