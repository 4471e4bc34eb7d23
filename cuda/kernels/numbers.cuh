// Conversions of numbers on the device: what src/kernels/cpu/dispatch.hpp has for the CPU.
#pragma once

#include <type_traits>

#include "core/bf16.hpp"
#include "core/tensor.hpp"
#include "cuda/device.cuh"
#include "kernels/checks/tensors.hpp"

namespace switchyard::kernels {

/// Type that elements of type T are computed in.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ inline float wide(float x) {
    return x;
}
__device__ inline double wide(double x) {
    return x;
}
__device__ inline float wide(bf16 x) {
    return cuda::to_f32_device(x);
}

/// f64 to bf16 with one rounding: the f32 in between is sticky (rounded to odd), then it is rounded.
__device__ inline bf16 narrow_to_bf16(double x) {
    const float nearest = static_cast<float>(x);
    const double back = static_cast<double>(nearest);
    std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest);
    if ((bits & 0xFFFFu) == 0x8000u) {  // only in a tie do the cut-off bits decide
        if (fabs(back) < fabs(x)) ++bits;
        if (fabs(back) > fabs(x)) --bits;
    }
    return cuda::to_bf16_device(std::bit_cast<float>(bits));
}

/// A number converted to T, rounded once to nearest even.
template <class T, class From>
__device__ inline T narrow(From x) {
    if constexpr (std::is_same_v<T, From>)
        return x;
    else if constexpr (std::is_same_v<From, bf16>)
        return static_cast<T>(wide(x));
    else if constexpr (!std::is_same_v<T, bf16>)
        return static_cast<T>(x);
    else if constexpr (std::is_same_v<From, float>)
        return cuda::to_bf16_device(x);
    else
        return narrow_to_bf16(x);
}

/// The same inside a kernel that finds the type in its arguments.
template <class F>
__device__ void with_number(DType dtype, const F& f) {
    if (dtype == DType::f32)
        f.template operator()<float>();
    else if (dtype == DType::bf16)
        f.template operator()<bf16>();
    else
        f.template operator()<double>();
}

/// The number of threads of a block for `work` items: whole warps, at most `most`.
inline int block_threads(std::int64_t work, int most = 256) {
    const std::int64_t rounded = cuda::ceil_div(work, cuda::warp_size) * cuda::warp_size;
    return static_cast<int>(rounded < most ? rounded : most);
}

struct Addition {
    template <class T>
    __device__ static T combine(T a, T b) {
        return a + b;
    }
};

/// The sum over the lanes of a warp, on all of them: pairs at distance 16, 8, 4, 2, 1.
template <class T>
__device__ inline T warp_sum(T x) {
    return cuda::combine_lanes<Addition>(x, cuda::warp_size);
}

}  // namespace switchyard::kernels
