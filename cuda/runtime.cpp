#include "cuda/runtime.hpp"

#include <cstdlib>
#include <map>
#include <sstream>
#include <string>

#include "core/error.hpp"

namespace switchyard::cuda {
namespace {

/// The rank's number among those of its node, as the launcher tells it; 0 without a launcher.
int local_rank() {
    for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID",
                             "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID", "FLUX_TASK_LOCAL_ID"})
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

/// Whether kernels compiled for SWITCHYARD_BUILT_ARCHITECTURES, as "80,90" or "90-real", start there: code of
/// the same generation, or one from before that the driver compiles.
bool built_for(const cudaDeviceProp& gpu) {
    std::istringstream built(SWITCHYARD_BUILT_ARCHITECTURES);
    for (std::string one; std::getline(built, one, ',');) {
        const int number = std::atoi(one.c_str());
        if (number == 0) return true;  // "all", "native": CMake chose
        const bool same_only = one.find_first_not_of("0123456789") != one.npos && !one.ends_with("-virtual");
        if (number <= 10 * gpu.major + gpu.minor && (!same_only || number / 10 == gpu.major)) return true;
    }
    return false;
}

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
    require(
        built_for(device->properties),
        "GPU {} ({}) has compute capability {}.{}, and this program was built for {} (none of its kernels "
        "starts there); build with -DSWITCHYARD_GPU_ARCHITECTURES={}{}",
        device->number, device->properties.name, device->properties.major, device->properties.minor,
        SWITCHYARD_BUILT_ARCHITECTURES, device->properties.major, device->properties.minor);
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

void check_blocks(std::int64_t blocks) {
    internal_check(blocks <= 0x7FFFFFFF, "{} blocks in one launch", blocks);
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
