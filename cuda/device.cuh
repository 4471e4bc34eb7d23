// What kernels may use of CUDA: one vocabulary for nvcc and for g++, which runs the same files without a GPU
// (tests/cuda_emulation). The only file with #ifdef, and the only one that names instructions.
//
// Rules that make one text serve both: kernels start through launch(); shared memory is one typed struct from
// block_memory(); no block waits for another one; grids are long in x (y and z end at 65,535); sums that must
// have the same bits everywhere do not depend on the grid.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "core/bf16.hpp"
#include "core/calls.hpp"
#include "cuda/runtime.hpp"

#ifdef SWITCHYARD_CUDA_EMULATION
#include "emulation.hpp"
#else
#include <cuda_bf16.h>
#endif

namespace switchyard::cuda {

inline constexpr int warp_size = 32;
inline constexpr unsigned all_lanes = 0xFFFFFFFFu;

/// The size of a launch. `shared_bytes`: sizeof the struct that the kernel asks block_memory() for, or 0.
struct Grid {
    std::int64_t blocks = 1;
    int threads = 256;
    std::size_t shared_bytes = 0;
};

/// A round-up division.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

/// Sixteen bytes that are loaded and stored at once; addresses are multiples of 16.
template <class T>
struct alignas(16) Vector {
    static constexpr int size = 16 / sizeof(T);
    T x[size];
};

#ifdef SWITCHYARD_CUDA_EMULATION

/// Before a loop over registers: they have no addresses, so its bounds are constants and it is written out.
#define SWITCHYARD_UNROLL
/// Before a loop that would take too many registers if it was written out.
#define SWITCHYARD_NO_UNROLL

template <class T>
T& block_memory() {
    return *static_cast<T*>(emulation::shared_memory(sizeof(T)));
}

/// Starts `kernel` on `stream`; without blocks there is no launch.
template <class... P, class... A>
void launch(cudaStream_t stream, const Grid& grid, void (*kernel)(P...), const A&... arguments) {
    // A parameter in constant memory (__grid_constant__) is a reference here.
    static_assert((std::is_trivially_copyable_v<std::remove_cvref_t<P>> && ...));
    static_assert(((!std::is_reference_v<P> || std::is_const_v<std::remove_reference_t<P>>)&&...));
    static_assert((std::size_t{0} + ... + sizeof(P)) <= 32'764, "CUDA's limit");
    if (grid.blocks == 0) return;
    count_call(Call::launch);
    emulation::enqueue_kernel(stream, grid.blocks, grid.threads, grid.shared_bytes,
                              [kernel, values = std::tuple<std::remove_cvref_t<P>...>(
                                           static_cast<P>(arguments)...)] { std::apply(kernel, values); });
    SWITCHYARD_CUDA(cudaGetLastError());
}

__device__ inline float to_f32_device(bf16 x) {
    return to_f32(x);
}
__device__ inline bf16 to_bf16_device(float x) {
    return to_bf16(x);
}

/// Two numbers rounded to bf16, `low` in the lower half: one register of a fragment.
inline std::uint32_t pack_bf16(float low, float high) {
    return to_bf16(low).bits | static_cast<std::uint32_t>(to_bf16(high).bits) << 16;
}
/// 2^x to 2 units in the last place; 0 where that is subnormal.
inline float exp2_device(float x) {
    const float power = std::exp2(x);
    return power < 0x1p-126f ? 0 : power;
}

/// Operation::combine over groups of `lanes` lanes (a power of two) of a whole warp, on all of them: pairs at
/// distance lanes / 2, ..., 2, 1.
template <class Operation, class T>
T combine_lanes(T value, int lanes, const emulation::Where& where = emulation::Where::current()) {
    return emulation::combine_as<Operation>(value, static_cast<unsigned>(lanes), where);
}

/// d (16 x 8) += a (16 x 16) b (16 x 8), bf16 with f32 sums, by one warp; fragments as PTX lays them out for
/// mma.m16n8k16: a holds rows g, g + 8 and columns 2t, 2t + 8 of group g = lane / 4, t = lane % 4.
inline void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                const emulation::Where& where = emulation::Where::current()) {
    emulation::multiply(d, a, b, where);
}

/// Loads four 8 x 8 matrices of bf16 from shared memory (ldmatrix.x4): lane i gives the address of row i % 8
/// of matrix i / 8 and receives, of each matrix, elements 2 (lane % 4) and the next of row lane / 4.
/// `transposed`: of each matrix's transpose.
template <bool transposed>
void load_matrices(std::uint32_t (&d)[4], const void* row,
                   const emulation::Where& where = emulation::Where::current()) {
    emulation::load_matrices(d, row, transposed, where);
}

/// Copies 16 bytes from global to shared memory in the background, or zeros if not `valid`. They are there
/// after commit_copies(), wait_copies() and a barrier.
inline void copy_async(void* shared, const void* global, bool valid,
                       const emulation::Where& where = emulation::Where::current()) {
    emulation::copy_async(shared, global, valid, where);
}
inline void commit_copies(const emulation::Where& where = emulation::Where::current()) {
    emulation::commit_copies(where);
}
/// Waits until at most `pending` groups of committed copies of this thread are under way.
template <int pending>
void wait_copies() {
    emulation::wait_copies(pending);
}

#else

#define SWITCHYARD_UNROLL _Pragma("unroll")
#define SWITCHYARD_NO_UNROLL _Pragma("unroll 1")

template <class T>
__device__ inline T& block_memory() {
    extern __shared__ __align__(128) unsigned char memory[];
    return *reinterpret_cast<T*>(memory);
}

template <class... P, class... A>
void launch(cudaStream_t stream, const Grid& grid, void (*kernel)(P...), const A&... arguments) {
    if (grid.blocks == 0) return;
    count_call(Call::launch);
    allow_shared_bytes(reinterpret_cast<const void*>(kernel), grid.shared_bytes);
    // clang-format off
    kernel<<<static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.threads), grid.shared_bytes, stream>>>(
        static_cast<P>(arguments)...);
    // clang-format on
    SWITCHYARD_CUDA(cudaGetLastError());
}

__device__ inline float to_f32_device(bf16 x) {
    return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ inline bf16 to_bf16_device(float x) {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

__device__ inline std::uint32_t pack_bf16(float low, float high) {
    std::uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0,%1,%2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
__device__ inline float exp2_device(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(power) : "f"(x));
    return power;
}

template <class Operation, class T>
__device__ T combine_lanes(T value, int lanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        value = Operation::combine(value, __shfl_xor_sync(all_lanes, value, distance));
    return value;
}

__device__ inline void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <bool transposed>
__device__ inline void load_matrices(std::uint32_t (&d)[4], const void* row) {
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if constexpr (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                     : "r"(at)
                     : "memory");
}

__device__ inline void copy_async(void* shared, const void* global, bool valid) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(to), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}
__device__ inline void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int pending>
__device__ inline void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#endif

/// On the compute stream.
template <class... P, class... A>
void launch(const Grid& grid, void (*kernel)(P...), const A&... arguments) {
    launch(compute_stream(), grid, kernel, arguments...);
}

}  // namespace switchyard::cuda
