// Device memory. Blocks are few and large, so each is one allocation of the runtime; managed memory is not
// used.
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/backend_memory.hpp"
#include "core/calls.hpp"
#include "core/host.hpp"
#include "core/memory_blocks.hpp"
#include "cuda/runtime.hpp"

namespace switchyard::backend {
namespace {

MemoryBlocks& blocks() {
    static auto* const all =
        new MemoryBlocks;  // never destroyed: the workspace lives to the end of the process
    return *all;
}

}  // namespace

std::size_t alignment() {
    return 256;
}

std::byte* allocate(std::size_t bytes) {
    count_call(Call::allocation);
    cuda::compute_stream();  // which chooses the device
    void* memory = nullptr;
    const cudaError_t code = cudaMalloc(&memory, std::max<std::size_t>(bytes, 1));
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError();  // forgets it
        return nullptr;
    }
    SWITCHYARD_CUDA(code);
    blocks().add(memory, bytes);
    return static_cast<std::byte*>(memory);
}

void release(std::byte* memory) noexcept {
    blocks().remove(memory);
    cudaDeviceSynchronize();  // cudaFree alone may or may not wait for kernels that work in it
    cudaFree(memory);         // a failure here is a failure of the device, which the next call reports
}

void clear(std::byte* start, std::size_t bytes) {
    if (bytes > 0) SWITCHYARD_CUDA(cudaMemsetAsync(start, 0, bytes, cuda::compute_stream()));
}

Pool pool() {
    cuda::compute_stream();
    std::size_t free = 0, total = 0;
    SWITCHYARD_CUDA(cudaMemGetInfo(&free, &total));
    std::string key = host_name() + " GPU ";
    for (char byte : cuda::device_properties().uuid.bytes)
        key += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    return {fmt::format("GPU {} of {}", cuda::device_number(), host_name()), static_cast<double>(free), key};
}

double used_bytes() {
    return static_cast<double>(blocks().used());
}

double peak_used_bytes() {
    return static_cast<double>(blocks().peak());
}

void reset_peak_used_bytes() {
    blocks().reset_peak();
}

bool owns(const void* start, std::size_t bytes) {
    return blocks().own(start, bytes);
}

}  // namespace switchyard::backend
