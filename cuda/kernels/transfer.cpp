// Copies between host arrays and device memory, by way of pinned memory: after an upload the host goes on at
// once and may reuse its array; a download waits for everything before it on the compute stream.
#include "kernels/transfer.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "core/call_counts.hpp"
#include "cuda/runtime.hpp"
#include "cuda/waiting.hpp"
#include "kernels/checks.hpp"

namespace switchyard::kernels {
namespace {

constexpr std::size_t part_bytes = std::size_t{4} << 20;
constexpr int num_parts = 4;

std::byte* pinned_memory(std::size_t bytes) {
    void* memory = nullptr;
    SWITCHYARD_CUDA(cudaMallocHost(&memory, bytes));
    return static_cast<std::byte*>(memory);
}

/// Pinned memory in parts, which are used in turn. Never destroyed: the driver may have ended before.
struct Parts {
    std::byte* memory = pinned_memory(num_parts * part_bytes);
    cudaEvent_t copied[num_parts];  // the last copy from or to a part
    Parts() {
        for (cudaEvent_t& event : copied)
            SWITCHYARD_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    }
    std::byte* operator[](int part) const { return memory + static_cast<std::size_t>(part) * part_bytes; }
};

/// Uploads fill one part after the other, several small ones share one, and a part is used again when all
/// copies from it are done.
class Uploads {
  public:
    void add(const std::byte* from, std::byte* to, std::size_t bytes) {
        while (bytes > 0) {
            if (used_ == part_bytes) next_part();
            const std::size_t now = std::min(bytes, part_bytes - used_);
            std::byte* staged = parts_[part_] + used_;
            std::memcpy(staged, from, now);
            SWITCHYARD_CUDA(cudaMemcpyAsync(to, staged, now, cudaMemcpyHostToDevice, cuda::compute_stream()));
            used_ += now, from += now, to += now, bytes -= now;
        }
    }

  private:
    void next_part() {
        SWITCHYARD_CUDA(cudaEventRecord(parts_.copied[part_], cuda::compute_stream()));
        part_ = (part_ + 1) % num_parts, used_ = 0;
        cuda::wait_for(parts_.copied[part_]);
    }

    Parts parts_;
    int part_ = 0;
    std::size_t used_ = 0;
};

/// A download in parts: while the host empties one, the device fills the others.
void download_parts(const std::byte* from, std::byte* to, std::size_t bytes) {
    static auto* const parts = new Parts;
    const std::size_t count = (bytes + part_bytes - 1) / part_bytes;
    const auto length = [&](std::size_t i) { return std::min(part_bytes, bytes - i * part_bytes); };
    const auto start = [&](std::size_t i) {
        const int part = static_cast<int>(i % num_parts);
        SWITCHYARD_CUDA(cudaMemcpyAsync((*parts)[part], from + i * part_bytes, length(i),
                                        cudaMemcpyDeviceToHost, cuda::compute_stream()));
        SWITCHYARD_CUDA(cudaEventRecord(parts->copied[part], cuda::compute_stream()));
    };
    for (std::size_t i = 0; i < std::min<std::size_t>(count, num_parts); ++i) start(i);
    for (std::size_t i = 0; i < count; ++i) {
        const int part = static_cast<int>(i % num_parts);
        cuda::wait_for(parts->copied[part]);
        std::memcpy(to + i * part_bytes, (*parts)[part], length(i));
        if (i + num_parts < count) start(i + num_parts);
    }
}

}  // namespace

void upload(const void* host, Tensor tensor) {
    count_call(Call::upload);
    if (tensor.empty()) return;
    check_owned(tensor);
    static auto* const uploads = new Uploads;
    uploads->add(static_cast<const std::byte*>(host), tensor.data<std::byte>(), tensor.bytes());
}

void download(Tensor tensor, void* host) {
    count_call(Call::host_read);
    if (tensor.empty()) return;
    check_owned(tensor);
    download_parts(tensor.data<std::byte>(), static_cast<std::byte*>(host), tensor.bytes());
}

}  // namespace switchyard::kernels
