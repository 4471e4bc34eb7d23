// Asks again and again: as quick as the driver's own waiting, which asks as well, but cannot be left. After
// the first turns others may run on this core: NCCL's thread for the network, where the rank has no other.
#include "cuda/waiting.hpp"

#include <sched.h>

#include "core/last_calls.hpp"
#include "cuda/runtime.hpp"

namespace switchyard::cuda {
namespace {

constexpr unsigned asked_between_watches = 4096;  // some milliseconds
constexpr unsigned asked_without_yielding = 256;

void (*watch)() = nullptr;

template <class Ask>
void wait_until_done(Ask ask) {
    const WaitingForDevice waiting;
    for (unsigned asked = 0;; ++asked) {
        const cudaError_t code = ask();
        if (code == cudaSuccess) return;
        if (code != cudaErrorNotReady) SWITCHYARD_CUDA(code);
        cudaGetLastError();  // forgets that it was not ready: the next launch would take that for its failure
        if (asked >= asked_without_yielding) ::sched_yield();
        if (watch && asked % asked_between_watches == 0) watch();
    }
}

}  // namespace

void wait_for(cudaStream_t stream) {
    wait_until_done([&] { return cudaStreamQuery(stream); });
}

void wait_for(cudaEvent_t event) {
    wait_until_done([&] { return cudaEventQuery(event); });
}

void watch_while_waiting(void (*function)()) {
    watch = function;
}

}  // namespace switchyard::cuda
