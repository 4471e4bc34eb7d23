#include "cuda/runtime.hpp"

#include <cstdlib>
#include <map>

#include "core/error.hpp"

namespace switchyard::cuda {
namespace {

/// The rank's number among those of its node, as the launcher tells it; 0 without a launcher.
int local_rank() {
    for (const char* name :
         {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID", "PMI_LOCAL_RANK"})
        if (const char* text = std::getenv(name)) return std::atoi(text);
    return 0;
}

/// What the device needs for the life of the process. Never destroyed: the driver may have ended before.
struct Device {
    int number = 0;
    cudaDeviceProp properties{};
    cudaStream_t compute = nullptr, communication = nullptr, copy = nullptr;
    std::map<const void*, std::size_t> shared_bytes;  // that kernels may use
};

Device* open_device() {
    int count = 0;
    const cudaError_t found = cudaGetDeviceCount(&count);
    require(found == cudaSuccess && count > 0,
            "this program computes on an NVIDIA GPU, and none can be used here: {} (the driver is missing or "
            "too old, or "
            "CUDA_VISIBLE_DEVICES hides the GPUs); start it on a node with a GPU, or use the CPU program",
            found == cudaSuccess ? "no device" : cudaGetErrorString(found));
    auto* device = new Device;
    device->number = local_rank() % count;
    SWITCHYARD_CUDA(cudaSetDevice(device->number));
    SWITCHYARD_CUDA(cudaGetDeviceProperties(&device->properties, device->number));
    for (cudaStream_t* stream : {&device->compute, &device->communication, &device->copy})
        SWITCHYARD_CUDA(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
    return device;
}

Device& device() {
    static Device* const opened = open_device();
    return *opened;
}

}  // namespace

void check_call(cudaError_t code, const char* call, const std::source_location& where) {
    if (code == cudaSuccess) return;
    fail(
        "the GPU reports {} ({}): {} failed, called at {}:{}; what was computed since the last step is lost, "
        "so resume from "
        "the last checkpoint",
        cudaGetErrorName(code), cudaGetErrorString(code), call, where.file_name(), where.line());
}

cudaStream_t compute_stream() {
    return device().compute;
}

cudaStream_t communication_stream() {
    return device().communication;
}

cudaStream_t copy_stream() {
    return device().copy;
}

int device_number() {
    return device().number;
}

const cudaDeviceProp& device_properties() {
    return device().properties;
}

int multiprocessors() {
    return device().properties.multiProcessorCount;
}

void allow_shared_bytes(const void* kernel, std::size_t bytes) {
    constexpr std::size_t without_asking = 48 * 1024;
    std::size_t& allowed = device().shared_bytes[kernel];
    if (bytes <= without_asking || bytes <= allowed) return;
    SWITCHYARD_CUDA(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
    allowed = bytes;
}

}  // namespace switchyard::cuda
