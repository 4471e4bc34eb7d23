// Accesses to memory that is not there, not aligned, not the kernel's or not written; and streams that
// nothing orders.
#include "planted.hpp"

namespace detectors {
namespace {

__global__ void sum(const float* x, float* y, int count) {
    float total = 0;
    for (int i = 0; i < count; ++i) total += x[i];  // planted: beyond_array
    y[0] = total;
}
const Fault beyond_array{
    "beyond_array", {{"address", "heap-buffer-overflow[^~]*{line}"}}, [](bool planted) {
        launch(Grid{1, 1}, sum, device_numbers(100), device_numbers(1), planted ? 101 : 100);
        cudaDeviceSynchronize();
    }};
/// 4096 bytes end at the page that nobody can touch; smaller overruns are AddressSanitizer's.
const Fault beyond_block{
    "beyond_block",
    {{"plain", "thread 0 of block 0 overruns device memory: byte 4096 of a block of 4096"}},
    [](bool planted) {
        launch(Grid{1, 1}, sum, device_numbers(1024), device_numbers(1), planted ? 1025 : 1024);
        cudaDeviceSynchronize();
    }};

struct Tile {
    float x[32];
};
__global__ void sum_of_tile(float* y, int count) {
    auto& shared = block_memory<Tile>();
    shared.x[threadIdx.x] = 1;
    __syncwarp();
    float total = 0;
    for (int i = 0; i < count; ++i) total += *(&shared.x[0] + i);  // planted: beyond_shared
    y[threadIdx.x] = total;
}
const Fault beyond_shared{
    "beyond_shared",
    {{"address", "heap-buffer-overflow[^~]*{line}"}, {"plain", "overruns its block's shared memory"}},
    [](bool planted) {
        launch(Grid{1, 32, sizeof(Tile)}, sum_of_tile, device_numbers(32), planted ? 33 : 32);
        cudaDeviceSynchronize();
    }};

__global__ void load_vector(const float* x, float* y) {
    const auto v = *reinterpret_cast<const Vector<float>*>(x);  // planted: misaligned
    y[0] = v.x[0];
}
const Fault misaligned{
    "misaligned", {{"address", "{line}[^~]*misaligned address"}}, [](bool planted) {
        launch(Grid{1, 1}, load_vector, device_numbers(8) + (planted ? 1 : 4), device_numbers(1));
        cudaDeviceSynchronize();
    }};

__device__ float deep(int levels, float* y) {
    volatile float wide[256];
    wide[levels] = y[0];
    return levels == 0 ? wide[0] : deep(levels - 1, y) + wide[levels];
}
__global__ void recurse(float* y, int levels) {
    y[0] = deep(levels, y);
}
const Fault beyond_stack{"beyond_stack", {{"plain", "overruns its stack"}}, [](bool planted) {
                             launch(Grid{1, 1}, recurse, device_numbers(1), planted ? 200 : 2);
                             cudaDeviceSynchronize();
                         }};

__global__ void write_all_but(float* y, unsigned left_out) {
    if (threadIdx.x != left_out) y[threadIdx.x] = 1;
}
const Fault unwritten_output{"unwritten_output", {{"plain", "wrong result"}}, [](bool planted) {
                                 float* const y = device_numbers(32);
                                 launch(Grid{1, 32}, write_all_but, y, planted ? 7u : 99u);
                                 expect(read(y, 32) == std::vector<float>(32, 1));
                             }};

const Fault host_access{"host_access",
                        {{"plain", "host code touches device memory outside kernels and copies: byte 12 "}},
                        [](bool planted) {
                            float* const y = device_numbers(32);
                            launch(Grid{1, 32}, write_all_but, y, 99u);
                            expect((planted ? y[3] : read(y, 32)[3]) == 1);
                        }};

const Fault missing_event{"missing_event", {{"plain", "wrong result"}}, [](bool planted) {
                              float *const x = device_numbers(32), *const y = device_numbers(1);
                              cudaEvent_t written = nullptr;
                              cudaEventCreateWithFlags(&written, cudaEventDisableTiming);
                              launch(communication_stream(), Grid{1, 32}, write_all_but, x, 99u);
                              cudaEventRecord(written, communication_stream());
                              if (!planted) cudaStreamWaitEvent(compute_stream(), written);
                              launch(Grid{1, 1}, sum, x, y, 32);
                              expect(read(y, 1)[0] == 32);
                          }};

const Fault pinned_memory_reused{
    "pinned_memory_reused", {{"plain", "wrong result"}}, [](bool planted) {
        void* pinned = nullptr;
        cudaMallocHost(&pinned, sizeof(float));
        float *const x = device_numbers(2), *const host = static_cast<float*>(pinned);
        for (int i = 0; i < 2; ++i) {
            *host = static_cast<float>(i + 1);
            cudaMemcpyAsync(x + i, host, sizeof(float), cudaMemcpyHostToDevice, compute_stream());
            if (!planted) cudaStreamSynchronize(compute_stream());
        }
        expect(read(x, 2) == std::vector<float>{1, 2});
    }};

}  // namespace
}  // namespace detectors
