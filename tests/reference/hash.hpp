// Hash of a tensor's bits, element by element as its definition says (kernels/hash.hpp).
#pragma once

#include <cstdint>
#include <cstring>

#include "core/rng.hpp"
#include "core/tensor.hpp"

namespace switchyard::reference {

inline std::uint64_t hash_bits(const Tensor& tensor) {
    const std::size_t element = size_of(tensor.dtype());
    std::uint64_t sum = 0;
    for (std::int64_t i = 0; i < tensor.size(); ++i) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, tensor.data<std::byte>() + static_cast<std::size_t>(i) * element, element);
        sum += mix64(static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15ull + bits);
    }
    return sum;
}

}  // namespace switchyard::reference
