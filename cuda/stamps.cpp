// A point in time is an event on the compute stream.
#include "core/stamps.hpp"

#include <cuda_runtime.h>

#include <vector>

#include "cuda/runtime.hpp"
#include "cuda/waiting.hpp"

namespace switchyard {

struct Stamps::Points {
    std::vector<cudaEvent_t> events;  // null where no point was set
    ~Points() {
        for (cudaEvent_t event : events)
            if (event) cudaEventDestroy(event);
    }
};

Stamps::Stamps() : points_(std::make_unique<Points>()) {}
Stamps::~Stamps() = default;
Stamps::Stamps(Stamps&&) noexcept = default;
Stamps& Stamps::operator=(Stamps&&) noexcept = default;

void Stamps::stamp(int i) {
    const auto at = static_cast<std::size_t>(i);
    if (at >= points_->events.size()) points_->events.resize(at + 1);
    cudaEvent_t& event = points_->events[at];
    if (!event) SWITCHYARD_CUDA(cudaEventCreateWithFlags(&event, cudaEventDefault));
    SWITCHYARD_CUDA(cudaEventRecord(event, cuda::compute_stream()));
}

double Stamps::seconds(int from, int to) const {
    cudaEvent_t first = points_->events.at(static_cast<std::size_t>(from)),
                last = points_->events.at(static_cast<std::size_t>(to));
    cuda::wait_for(first);
    cuda::wait_for(last);
    float milliseconds = 0;
    SWITCHYARD_CUDA(cudaEventElapsedTime(&milliseconds, first, last));
    return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace switchyard
