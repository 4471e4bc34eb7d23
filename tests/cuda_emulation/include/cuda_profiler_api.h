// Start and stop of a capture, for g++: CUDA_EMULATION_TRACE=1 prints them.
#pragma once

#include <cuda_runtime.h>

cudaError_t cudaProfilerStart();
cudaError_t cudaProfilerStop();
