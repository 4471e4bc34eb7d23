// NVTX ranges for Nsight Systems, which draws the kernels that were started in each; and the capture range of
// `nsys profile --capture-range=cudaProfilerApi`.
#include "core/trace.hpp"

#include <cuda_profiler_api.h>
#include <nvtx3/nvToolsExt.h>

#include "cuda/runtime.hpp"

namespace switchyard::backend {

void begin_range(const char* name) {
    nvtxRangePushA(name);
}

void end_range() {
    nvtxRangePop();
}

void begin_capture() {
    SWITCHYARD_CUDA(cudaStreamSynchronize(cuda::compute_stream()));
    SWITCHYARD_CUDA(cudaProfilerStart());
}

void end_capture() {
    SWITCHYARD_CUDA(cudaStreamSynchronize(cuda::compute_stream()));
    SWITCHYARD_CUDA(cudaProfilerStop());
}

}  // namespace switchyard::backend
