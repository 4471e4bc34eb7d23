// The device of this rank and its streams. All are made when first asked for, so that commands
// which need no device run where there is none.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <source_location>

namespace switchyard::cuda {

/// Throws a UserError that names the call if it failed; `call` is its text.
void check_call(cudaError_t, const char* call, const std::source_location&);
#define SWITCHYARD_CUDA(call) ::switchyard::cuda::check_call((call), #call, std::source_location::current())

/// Kernels and copies of the step, in order.
cudaStream_t compute_stream();
/// Collectives. Ordered with the compute stream by events (see collectives.cu).
cudaStream_t communication_stream();
/// Copies to the host, which pack kernels of the compute stream run beside.
cudaStream_t copy_stream();

/// The device of this rank, chosen by its number among the ranks of its node.
int device_number();
const cudaDeviceProp& device_properties();
int multiprocessors();

/// Throws an InternalError if one launch cannot have so many.
void check_blocks(std::int64_t blocks);

/// Lets a kernel use more than 48 KiB of shared memory; asked once for each kernel.
void allow_shared_bytes(const void* kernel, std::size_t bytes);

}  // namespace switchyard::cuda
