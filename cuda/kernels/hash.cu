// A thread adds the terms of its packs; sums modulo 2^64 do not depend on the order of their terms.
#include "core/calls.hpp"
#include "core/rng.hpp"
#include "cuda/kernels/reduce.cuh"
#include "kernels/hash.hpp"

namespace switchyard::kernels {
namespace {

struct Hash {
    using Value = std::uint64_t;
    using Result = std::uint64_t;
    __device__ static Value start() { return 0; }
    template <class Bits>
    __device__ static Value add(Value sum, Bits bits, std::int64_t index) {
        return sum + mix64(static_cast<std::uint64_t>(index) * 0x9E3779B97F4A7C15ull + bits);
    }
    __device__ static Value combine(Value a, Value b) { return a + b; }
    __device__ static Result result(Value sum) { return sum; }
    /// Bits of the length of an element.
    template <class F>
    __device__ static void with_type(DType dtype, const F& f) {
        if (dtype == DType::f64 || dtype == DType::i64)
            f.template operator()<std::uint64_t>();
        else if (dtype == DType::f32 || dtype == DType::i32)
            f.template operator()<std::uint32_t>();
        else if (dtype == DType::u8)
            f.template operator()<std::uint8_t>();
        else
            f.template operator()<std::uint16_t>();
    }
};

}  // namespace

void hash_bits(std::span<const Tensor> tensors, Tensor hashes) {
    count_kernel(__func__);
    check("hashes", hashes, DType::i64, {static_cast<std::int64_t>(tensors.size())});
    std::vector<RowPart> rows;
    for (const Tensor& tensor : tensors) rows.push_back(one_row(tensor));
    reduce<Hash>(rows, hashes.data<std::uint64_t>());
}

}  // namespace switchyard::kernels
