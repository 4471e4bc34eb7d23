// Barriers and warp collectives that not all reach, and launches that no device runs.
#include "planted.hpp"

namespace detectors {
namespace {

__global__ void barriers(bool in_branch, bool after_exit) {
    if (after_exit && threadIdx.x >= 64) return;
    if (in_branch && threadIdx.x < 64) __syncthreads();
    __syncthreads();
}
const Fault barrier_in_branch{
    "barrier_in_branch", {{"plain", "comes to a barrier while thread"}}, [](bool planted) {
        launch(Grid{1, 128}, barriers, planted, false);
        cudaDeviceSynchronize();
    }};
const Fault barrier_after_exit{
    "barrier_after_exit", {{"plain", "64 of 128 threads have exited before a barrier"}}, [](bool planted) {
        launch(Grid{1, 128}, barriers, false, planted);
        cudaDeviceSynchronize();
    }};

__global__ void leave_shuffle(float* y, bool planted) {
    float x = 1;
    if (!planted || threadIdx.x != 5) x += __shfl_xor_sync(all_lanes, x, 1);
    y[threadIdx.x] = x;
}
const Fault lane_leaves_shuffle{
    "lane_leaves_shuffle", {{"plain", "reads lane 5|lane 5 exits while others wait"}}, [](bool planted) {
        launch(Grid{1, 32}, leave_shuffle, device_numbers(32), planted);
        cudaDeviceSynchronize();
    }};

__global__ void wait_crosswise(float* y, bool planted) {
    if (threadIdx.x < 32 || !planted) __syncthreads();
    if (threadIdx.x % 32 < 8) __syncwarp(planted && threadIdx.x >= 32 ? 0x1FFu : 0xFFu);
    if (threadIdx.x == 40 && planted) __syncthreads();
    y[threadIdx.x] = 1;
}
const Fault no_thread_goes_on{"no_thread_goes_on",
                              {{"plain", "no thread can go on|comes to a barrier|exited before a barrier"}},
                              [](bool planted) {
                                  launch(Grid{1, 64}, wait_crosswise, device_numbers(64), planted);
                                  cudaDeviceSynchronize();
                              }};

__global__ void multiply(float* y) {
    float d[4] = {};
    const std::uint32_t a[4] = {}, b[2] = {};
    mma(d, a, b);
    y[threadIdx.x] = d[0];
}
const Fault part_of_a_warp{"part_of_a_warp", {{"plain", "mma by a part of a warp"}}, [](bool planted) {
                               launch(Grid{1, planted ? 16 : 32}, multiply, device_numbers(32));
                               cudaDeviceSynchronize();
                           }};

struct Small {
    float x[8];
};
__global__ void use_small(float* y) {
    block_memory<Small>().x[0] = 1;
    y[0] = 1;
}
const Fault wrong_shared_size{
    "wrong_shared_size", {{"plain", "32 bytes of shared memory in a launch with 16"}}, [](bool planted) {
        launch(Grid{1, 1, planted ? 16 : sizeof(Small)}, use_small, device_numbers(1));
        cudaDeviceSynchronize();
    }};
const Fault too_many_threads{
    "too_many_threads", {{"plain", "a launch of 1 blocks of 1056 threads"}}, [](bool planted) {
        launch(Grid{1, planted ? 1056 : 1024}, barriers, false, false);
        cudaDeviceSynchronize();
    }};

}  // namespace
}  // namespace detectors
