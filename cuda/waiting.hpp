// The host waits for the device here and nowhere else in a step, so that it learns meanwhile of failures that
// would let it wait for ever.
#pragma once

#include <cuda_runtime.h>

namespace switchyard::cuda {

/// Until all work that was called on the stream is done, or the event has passed. Throws what `watch` throws.
void wait_for(cudaStream_t);
void wait_for(cudaEvent_t);

/// `watch` is called now and then while the host waits; it throws when waiting has no end. One watch is kept.
void watch_while_waiting(void (*watch)());

}  // namespace switchyard::cuda
