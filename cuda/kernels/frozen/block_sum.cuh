// The sum over the threads of a block of 256, whose bits depend on nothing else: lanes, then warps in order.
#pragma once

#include "cuda/kernels/numbers.cuh"

namespace switchyard::kernels {

struct WarpSums {
    static constexpr int threads = 256;
    double of_warp[threads / cuda::warp_size];
};

/// On thread 0; a launch has sizeof(WarpSums) bytes of shared memory.
__device__ inline double block_sum(double sum) {
    auto& shared = cuda::block_memory<WarpSums>();
    sum = warp_sum(sum);
    const int warp = static_cast<int>(threadIdx.x) / cuda::warp_size;
    if (threadIdx.x % cuda::warp_size == 0) shared.of_warp[warp] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return 0;
    double all = 0;
    for (int w = 0; w < WarpSums::threads / cuda::warp_size; ++w) all += shared.of_warp[w];
    return all;
}

}  // namespace switchyard::kernels
