// CUDA's execution model on one host thread, as kernels see it. Every CUDA thread of a block is a fiber;
// between two meeting points (barrier, warp collective, exit) it runs alone, and who runs next is drawn at
// random. What is not here does not compile, and misuse ends the process with a sentence. This folder is
// compiled without sanitizers, kernels with them.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <type_traits>

#define threadIdx (::emulation::self->thread)
#define blockIdx (::emulation::self->block)
#define blockDim (::emulation::launched.threads)
#define gridDim (::emulation::launched.blocks)

namespace emulation {

using Where = std::source_location;

struct Index {
    unsigned x = 0;
};
struct Thread {
    Index thread, block;
    unsigned lane = 0, number = 0;  // in its warp; in its block
};
struct Launched {
    Index blocks, threads;
    std::size_t shared_bytes = 0;
};
extern Thread* self;
extern Launched launched;

/// The block's shared memory; ends the process unless the launch gave exactly `bytes`.
void* shared_memory(std::size_t bytes, const Where& = Where::current());
void barrier(const Where&);
/// Ends the process: a kernel found that it must not go on.
[[noreturn]] void trap(const Where&);
/// All live lanes of `mask` meet, and what each did before comes before what the others do after.
void synchronize_warp(unsigned mask, const Where&);
/// All live lanes of `mask` meet. Returns the value that lane `source` brought. Of memory accesses it orders
/// nothing, nor do the following ones.
std::uint64_t shuffle(unsigned mask, std::uint64_t value, unsigned source, const char* name, const Where&);
/// All lanes of the warp meet: `combine` of the values of each group of `lanes` lanes, on all of them, pairs at
/// distance lanes / 2, ..., 1. As many shuffles would make it, in one meeting.
std::uint64_t combine(std::uint64_t value, unsigned lanes, std::uint64_t (*combine)(std::uint64_t, std::uint64_t),
                      const Where&);
/// The lanes of `mask` that brought true.
unsigned ballot(unsigned mask, bool value, const char* name, const Where&);
void multiply(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const Where&);
void load_matrices(std::uint32_t (&d)[4], const void* row, bool transposed, const Where&);
void copy_async(void* shared, const void* global, bool valid, const Where&);
void commit_copies(const Where&);
void wait_copies(int pending);

/// Runs a kernel now. The streams of runtime.cpp decide when that is.
void run_kernel(std::int64_t blocks, int threads, std::size_t shared_bytes,
                const std::function<void()>& body);
void enqueue_kernel(cudaStream_t, std::int64_t blocks, int threads, std::size_t shared_bytes,
                    std::function<void()> body);
/// Adds host code to a stream that may touch device memory when it runs: what libraries do there.
void enqueue_work(cudaStream_t, std::function<void()> work);
/// True if [start, start + bytes) lies in one block of device memory.
bool is_device_memory(const void* start, std::size_t bytes);

template <class T>
std::uint64_t bits_of(const T& value) {
    static_assert(sizeof(T) <= 8);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T>
T value_of(std::uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T>
T shuffle_as(unsigned mask, T value, unsigned source, const char* name, const Where& where) {
    return value_of<T>(shuffle(mask, bits_of(value), source, name, where));
}

template <class Operation, class T>
T combine_as(T value, unsigned lanes, const Where& where) {
    return value_of<T>(combine(
        bits_of(value), lanes,
        [](std::uint64_t a, std::uint64_t b) { return bits_of(Operation::combine(value_of<T>(a), value_of<T>(b))); },
        where));
}

}  // namespace emulation

inline void __syncthreads(const emulation::Where& where = emulation::Where::current()) {
    emulation::barrier(where);
}
inline void __syncwarp(unsigned mask = ~0u, const emulation::Where& where = emulation::Where::current()) {
    emulation::synchronize_warp(mask, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits,
                  const emulation::Where& where = emulation::Where::current()) {
    return emulation::shuffle_as(mask, value, emulation::self->lane ^ static_cast<unsigned>(bits),
                                 "__shfl_xor_sync", where);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, const emulation::Where& where = emulation::Where::current()) {
    return emulation::shuffle_as(mask, value, static_cast<unsigned>(lane), "__shfl_sync", where);
}
inline unsigned __ballot_sync(unsigned mask, bool value,
                              const emulation::Where& where = emulation::Where::current()) {
    return emulation::ballot(mask, value, "__ballot_sync", where);
}
[[noreturn]] inline void __trap(const emulation::Where& where = emulation::Where::current()) {
    emulation::trap(where);
}
inline int __ffs(int x) {
    return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
inline int __popc(unsigned x) {
    return std::popcount(x);
}
inline float rsqrtf(float x) {
    return 1 / std::sqrt(x);
}
inline double rsqrt(double x) {
    return 1 / std::sqrt(x);
}
using std::fabs;
using std::isfinite;
using std::isnan;
