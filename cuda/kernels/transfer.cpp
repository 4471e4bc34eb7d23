// Copies between host arrays and device memory. An upload goes through a ring of pinned memory, so that the
// host goes on at once and may reuse its array; a download waits for everything before it on the compute
// stream.
#include "kernels/transfer.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "core/backend_memory.hpp"
#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "cuda/runtime.hpp"

namespace switchyard::kernels {
namespace {

constexpr std::size_t part_bytes = std::size_t{4} << 20;
constexpr int num_parts = 4;

/// Parts are used in turn; one is used again when the copy from it is done. Large uploads take several. Small
/// ones share a part.
class Ring {
  public:
    Ring() {
        void* memory = nullptr;
        SWITCHYARD_CUDA(cudaMallocHost(&memory, num_parts * part_bytes));
        memory_ = static_cast<std::byte*>(memory);
        for (cudaEvent_t& event : copied_)
            SWITCHYARD_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    }

    void upload(const std::byte* from, std::byte* to, std::size_t bytes) {
        while (bytes > 0) {
            if (used_ == part_bytes) next_part();
            const std::size_t now = std::min(bytes, part_bytes - used_);
            std::byte* staged = memory_ + static_cast<std::size_t>(part_) * part_bytes + used_;
            std::memcpy(staged, from, now);
            SWITCHYARD_CUDA(cudaMemcpyAsync(to, staged, now, cudaMemcpyHostToDevice, cuda::compute_stream()));
            used_ += now, from += now, to += now, bytes -= now;
        }
    }

  private:
    void next_part() {
        SWITCHYARD_CUDA(cudaEventRecord(copied_[part_], cuda::compute_stream()));
        part_ = (part_ + 1) % num_parts, used_ = 0;
        SWITCHYARD_CUDA(cudaEventSynchronize(copied_[part_]));
    }

    std::byte* memory_ = nullptr;
    cudaEvent_t copied_[num_parts] = {};
    int part_ = 0;
    std::size_t used_ = 0;
};

/// Refuses tensors over host memory.
void check_owned(Tensor tensor) {
    internal_check(backend::owns(tensor.raw(), tensor.bytes()),
                   "transfer of a tensor {} {} that does not lie in back-end memory", tensor.shape(),
                   name_of(tensor.dtype()));
}

}  // namespace

void upload(const void* host, Tensor tensor) {
    count_call(Call::upload);
    if (tensor.empty()) return;
    check_owned(tensor);
    static auto* const ring = new Ring;  // never destroyed: the driver may have ended before
    ring->upload(static_cast<const std::byte*>(host), tensor.data<std::byte>(), tensor.bytes());
}

void download(Tensor tensor, void* host) {
    count_call(Call::host_read);
    if (tensor.empty()) return;
    check_owned(tensor);
    SWITCHYARD_CUDA(
        cudaMemcpyAsync(host, tensor.raw(), tensor.bytes(), cudaMemcpyDeviceToHost, cuda::compute_stream()));
    SWITCHYARD_CUDA(cudaStreamSynchronize(cuda::compute_stream()));
}

}  // namespace switchyard::kernels
