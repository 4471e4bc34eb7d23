// Neighbouring elements that a thread moves at once, and loops over long arrays. A chunk of 16 bytes or more
// moves by accesses of 16 bytes, so its address must be a multiple of 16; a chunk of one element fits
// anywhere.
#pragma once

#include <algorithm>

#include "cuda/kernels/numbers.cuh"

namespace switchyard::kernels {

template <class T, int n>
struct alignas(n * sizeof(T) < 16 ? n * sizeof(T) : 16) Chunk {
    T x[n];
};

template <int n, class T>
__device__ Chunk<T, n> load_chunk(const T* from) {
    return *reinterpret_cast<const Chunk<T, n>*>(from);
}
template <class T, int n>
__device__ void store_chunk(T* to, const Chunk<T, n>& chunk) {
    *reinterpret_cast<Chunk<T, n>*>(to) = chunk;
}

/// The first `count` elements of a chunk (none if negative), zeros behind them. `vectors`: `from` is a
/// multiple of 16.
template <int n, class T>
__device__ Chunk<T, n> load_part(const T* from, std::int64_t count, bool vectors) {
    if (vectors && count >= n) return load_chunk<n>(from);
    Chunk<T, n> chunk{};
    for (int i = 0; i < n; ++i)
        if (i < count) chunk.x[i] = from[i];
    return chunk;
}
template <class T, int n>
__device__ void store_part(T* to, const Chunk<T, n>& chunk, std::int64_t count, bool vectors) {
    if (vectors && count >= n) return store_chunk(to, chunk);
    for (int i = 0; i < n; ++i)
        if (i < count) to[i] = chunk.x[i];
}

/// True if every tensor begins at a multiple of 16 bytes.
template <class... Tensors>
bool aligned(const Tensors&... tensors) {
    return ((reinterpret_cast<std::uintptr_t>(tensors.raw()) % 16 == 0) && ...);
}

/// f.operator()<n>() with the elements of a chunk of T: 16 bytes of them, or one.
template <class T, class F>
void with_chunks(bool vectors, F f) {
    if (vectors)
        f.template operator()<cuda::Vector<T>::size>();
    else
        f.template operator()<1>();
}

/// Blocks that the device runs at a time if registers and shared memory allow.
inline std::int64_t resident_blocks(int threads) {
    constexpr int threads_of_multiprocessor = 2048;
    return std::int64_t{cuda::multiprocessors()} * (threads_of_multiprocessor / threads);
}
/// Enough threads to fill the device, or one for each of `units`; they take the units in turns.
inline cuda::Grid grid_for(std::int64_t units) {
    const int threads = block_threads(std::max<std::int64_t>(units, 1));
    return {std::min(cuda::ceil_div(units, threads), resident_blocks(threads)), threads};
}
__device__ inline std::int64_t first_unit() {
    return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t unit_step() {
    return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

/// body.template operator()<n>(at) handles elements at ... at + n - 1: chunks of T, then what is left one by
/// one.
template <class T, class Body>
static __global__ void __launch_bounds__(256)
    over_elements(std::int64_t chunks, std::int64_t units, Body body) {
    constexpr int n = cuda::Vector<T>::size;
    for (std::int64_t unit = first_unit(); unit < units; unit += unit_step()) {
        if (unit < chunks)
            body.template operator()<n>(unit * n);
        else
            body.template operator()<1>(unit + chunks * (n - 1));
    }
}

/// Runs `body` on `count` elements; `vectors`: all arrays begin at multiples of 16 bytes.
template <class T, class Body>
void for_elements(std::int64_t count, bool vectors, const Body& body) {
    const std::int64_t chunks = vectors ? count / cuda::Vector<T>::size : 0;
    const std::int64_t units = count - chunks * (cuda::Vector<T>::size - 1);
    cuda::launch(grid_for(units), over_elements<T, Body>, chunks, units, body);
}

}  // namespace switchyard::kernels
