// Events are used again: a stream that was told to wait for one keeps to the record that it had then.
#include "cuda/comm/stream_order.hpp"

#include <vector>

#include "cuda/runtime.hpp"
#include "cuda/waiting.hpp"

namespace switchyard::cuda {
namespace {

std::vector<cudaEvent_t>& free_events() {
    static auto* const events =
        new std::vector<cudaEvent_t>;  // never destroyed: the driver may have ended before
    return *events;
}

cudaEvent_t take_event() {
    cudaEvent_t event = nullptr;
    if (free_events().empty()) {
        SWITCHYARD_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
        return event;
    }
    event = free_events().back();
    free_events().pop_back();
    return event;
}

}  // namespace

Mark::Mark(cudaStream_t stream) : event_(take_event()) {
    SWITCHYARD_CUDA(cudaEventRecord(event_, stream));
}

Mark::~Mark() {
    free_events().push_back(event_);
}

void Mark::hold(cudaStream_t stream) const {
    SWITCHYARD_CUDA(cudaStreamWaitEvent(stream, event_));
}

void Mark::wait() const {
    wait_for(event_);
}

}  // namespace switchyard::cuda
