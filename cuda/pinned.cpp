// Counted, because `plan` promises how much it is.
#include "cuda/pinned.hpp"

#include <cuda_runtime.h>

#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "core/units.hpp"
#include "cuda/runtime.hpp"

namespace switchyard {
namespace {

std::size_t pinned = 0;

}  // namespace

std::byte* cuda::pinned_memory(std::size_t bytes, const char* purpose) {
    void* memory = nullptr;
    compute_stream();  // which chooses the device
    const cudaError_t code = cudaMallocHost(&memory, bytes);
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError();  // forgets it
        fail(
            "out of memory: {} of pinned host memory for {} are not there (the system lets processes lock "
            "too "
            "little of it, or the node is full); raise `ulimit -l`, or use fewer ranks on this node",
            bytes_text(bytes), purpose);
    }
    SWITCHYARD_CUDA(code);
    pinned += bytes;
    return static_cast<std::byte*>(memory);
}

std::size_t backend::pinned_bytes(int ranks) {
    return cuda::pinned_for_uploads + cuda::pinned_for_downloads +
           (ranks > 1 ? cuda::pinned_for_messages : 0);
}

std::size_t backend::used_pinned_bytes() {
    return pinned;
}

}  // namespace switchyard
