// The order that a program asks of streams, written as it asks. With CUDA_EMULATION_STREAMS=FILE each process
// writes FILE.PID: "1 7 ncclAllGather" is the seventh work of the second stream made, "1 6 waits 0 41" lets
// it wait until the first has done 41 works, "host 0 40" is the host that waits for that; ranges as in
// trace.cpp.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <string>

namespace emulation {

/// emulation.hpp's, with a name for the log.
void enqueue_work(cudaStream_t, const char* name, std::function<void()> work);

bool logging_streams();
/// A line that repeats the one before it is left out.
void log_streams(const std::string& line);

}  // namespace emulation
