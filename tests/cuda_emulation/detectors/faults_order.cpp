// What threads and copies in the background do without waiting for each other.
#include "planted.hpp"

namespace detectors {
namespace {

constexpr int threads = 64;
constexpr const char* race = "data race[^~]*{line}";

struct Shared {
    float x[threads];
};

__global__ void neighbour_of_warp(float* y, bool planted) {
    auto& shared = block_memory<Shared>();
    const unsigned i = threadIdx.x;
    shared.x[i] = static_cast<float>(i);
    if (!planted) __syncwarp();
    y[i] = shared.x[i ^ 1u];  // planted: missing_syncwarp
}
void missing_syncwarp(bool planted) {
    launch(Grid{1, threads, sizeof(Shared)}, neighbour_of_warp, device_numbers(threads), planted);
    cudaDeviceSynchronize();
}
const Fault missing_syncwarp_fault{"missing_syncwarp", {{"thread", race}}, missing_syncwarp};

__global__ void neighbour_after_shuffle(float* y, bool planted) {
    auto& shared = block_memory<Shared>();
    const unsigned i = threadIdx.x;
    shared.x[i] = static_cast<float>(i);
    const float one = __shfl_xor_sync(all_lanes, 1.0f, 1);
    if (!planted) __syncwarp();
    y[i] = one * shared.x[i ^ 1u];  // planted: shuffle_for_syncwarp
}
/// Lanes have met, but a shuffle orders no memory accesses.
void shuffle_for_syncwarp(bool planted) {
    launch(Grid{1, threads, sizeof(Shared)}, neighbour_after_shuffle, device_numbers(threads), planted);
    cudaDeviceSynchronize();
}
const Fault shuffle_for_syncwarp_fault{"shuffle_for_syncwarp", {{"thread", race}}, shuffle_for_syncwarp};

__global__ void sums_of_tiles(const float* x, float* y, int tiles, bool no_barrier_after,
                              bool no_barrier_before) {
    auto& shared = block_memory<Shared>();
    float sum = 0;
    for (int t = 0; t < tiles; ++t) {
        if (!no_barrier_before) __syncthreads();
        shared.x[threadIdx.x] =
            x[t * threads + static_cast<int>(threadIdx.x)];  // planted: barrier_before_load
        if (!no_barrier_after) __syncthreads();
        for (float value : shared.x)
            sum += value;  // planted: barrier_after_load, planted: barrier_before_load
    }
    y[threadIdx.x] = sum;
}
void run_tiles(bool no_barrier_after, bool no_barrier_before) {
    float *const x = device_numbers(4 * threads), *const y = device_numbers(threads);
    cudaMemsetAsync(x, 0, 4 * threads * sizeof(float), compute_stream());
    launch(Grid{1, threads, sizeof(Shared)}, sums_of_tiles, x, y, 4, no_barrier_after, no_barrier_before);
    expect(read(y, threads) == std::vector<float>(threads, 0));
}
const Fault barrier_after_load{"barrier_after_load",
                               {{"thread", race}, {"plain", "wrong result"}},
                               [](bool planted) { run_tiles(planted, false); }};
const Fault barrier_before_load{
    "barrier_before_load", {{"thread", race}}, [](bool planted) { run_tiles(false, planted); }};

__global__ void write_a_row(float* y, bool planted) {
    __syncthreads();
    const unsigned row = planted ? 0 : blockIdx.x;
    y[row * threads + threadIdx.x] = 1;  // planted: blocks_write_one_place
    __syncthreads();
}
void blocks_write_one_place(bool planted) {
    launch(Grid{3, threads}, write_a_row, device_numbers(3 * threads), planted);
    cudaDeviceSynchronize();
}
const Fault blocks_write_one_place_fault{
    "blocks_write_one_place", {{"thread", race}}, blocks_write_one_place};

struct Stage {
    alignas(16) float x[threads][4];
};
enum class Copied { waited_for, read_early, issued_early, never_waited_for };

__global__ void copy_tiles(const float* x, float* y, Copied how) {
    auto& shared = block_memory<Stage>();
    const int i = static_cast<int>(threadIdx.x);
    float sum = 0;
    for (int t = 0; t < 3; ++t) {
        copy_async(shared.x[i], x + 4 * (t * threads + i), true);  // planted: copy_issued_early
        commit_copies();
        if (how == Copied::waited_for || how == Copied::issued_early) wait_copies<0>();
        __syncthreads();
        sum += shared.x[(i + 1) % threads][0];  // planted: copy_issued_early
        if (how == Copied::read_early) wait_copies<0>();
        if (how != Copied::issued_early) __syncthreads();
    }
    y[i] = sum;
}
void run_copies(Copied how) {
    float *const x = device_numbers(12 * threads), *const y = device_numbers(threads);
    cudaMemsetAsync(x, 0, 12 * threads * sizeof(float), compute_stream());
    launch(Grid{1, threads, sizeof(Stage)}, copy_tiles, x, y, how);
    expect(read(y, threads) == std::vector<float>(threads, 0));
}
const Fault copy_read_early{
    "copy_read_early", {{"plain", "wrong result"}, {"thread", "data race|wrong result"}}, [](bool planted) {
        run_copies(planted ? Copied::read_early : Copied::waited_for);
    }};
const Fault copy_issued_early{"copy_issued_early", {{"thread", race}}, [](bool planted) {
                                  run_copies(planted ? Copied::issued_early : Copied::waited_for);
                              }};
const Fault copy_never_waited_for{
    "copy_never_waited_for", {{"plain", "exits with copies in the background"}}, [](bool planted) {
        run_copies(planted ? Copied::never_waited_for : Copied::waited_for);
    }};

}  // namespace
}  // namespace detectors
