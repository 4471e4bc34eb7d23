// Sums modulo 2^64 do not depend on the order of their terms.
#include "kernels/hash.hpp"

#include "core/calls.hpp"
#include "core/rng.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

template <class Bits>
std::uint64_t hash_of(const Bits* bits, std::int64_t n) {
    constexpr std::uint64_t index_factor = 0x9E3779B97F4A7C15ull;
    std::uint64_t sum = 0;
#pragma omp parallel for simd reduction(+ : sum) schedule(static) if (parallel : n > parallel_elements)
    for (std::int64_t i = 0; i < n; ++i) sum += mix64(static_cast<std::uint64_t>(i) * index_factor + bits[i]);
    return sum;
}

}  // namespace

void hash_bits(std::span<const Tensor> tensors, Tensor hashes) {
    count_kernel(__func__);
    check("hashes", hashes, DType::i64, {static_cast<std::int64_t>(tensors.size())});
    auto* result = static_cast<std::uint64_t*>(hashes.raw());
    for (const Tensor& tensor : tensors) {
        const std::size_t element = size_of(tensor.dtype());
        *result++ = tensor.empty() ? 0
                    : element == 8 ? hash_of(tensor.data<std::uint64_t>(), tensor.size())
                    : element == 4 ? hash_of(tensor.data<std::uint32_t>(), tensor.size())
                    : element == 1 ? hash_of(tensor.data<std::uint8_t>(), tensor.size())
                                   : hash_of(tensor.data<std::uint16_t>(), tensor.size());
    }
}

}  // namespace switchyard::kernels
