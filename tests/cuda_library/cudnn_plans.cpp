// The real cuDNN, without a GPU: it finds kernels for our graphs of attention, compiles them for GPUs that
// are described to it, and needs the workspace that we count on. Exits with 77 where the library is not
// there. Prints a line per shape. Arguments: the architectures of the build, 80, 90 or 100.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cuda/kernels/attention/cudnn/attention_graphs.hpp"

using namespace switchyard;  // NOLINT
using kernels::attention::Extents;

namespace {

std::string description(int capability, int shared_bytes) {
    return fmt::format(
        R"({{"deviceVer":{},"multiProcessorCount":108,"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
        R"("maxSharedMemoryPerBlockOptin":{},"reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,)"
        R"("maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"regsPerBlock":65536,)"
        R"("totalGlobalMem":85899345920,"smClockRateKHz":1410000,"l2CacheSize":41943040,)"
        R"("maxBlockSize":[1024,1024,64],"memClockRateKHz":1593000,"maxGridSize":[2147483647,65535,65535],)"
        R"("supportCoopLaunch":1,"pciDeviceId":0,"isTccDriver":0,"cudaDeviceId":0,"driverVer":13000,"deviceName":"GPU"}})",
        capability, shared_bytes);
}

/// Whether both passes have a plan, and no score is stored but the one that the backward pass may keep.
bool has_plans(const Extents& e, cudnnBackendDescriptor_t device, int capability) {
    namespace fused = kernels::attention::fused;
    constexpr std::size_t anything = std::size_t{1} << 40;
    std::string text;
    bool right = false;
    try {
        const std::size_t forward = fused::forward_graph(e).plan(device, anything).workspace_bytes,
                          backward = fused::backward_graph(e).plan(device, anything).workspace_bytes;
        // Gradients of grouped heads are kept for each head in f32 before they are added.
        const std::size_t of_heads =
            e.group() == 1 ? 0 : static_cast<std::size_t>(2 * e.b * e.h * e.t * e.d) * sizeof(float);
        right = forward <= 4096 && backward <= fused::scores_bytes(e) + of_heads + 4096;
        text = fmt::format("workspaces of {} and {} bytes", forward, backward);
    } catch (const std::exception& error) {
        text = error.what();
    }
    fmt::print("{} capability {}, {} x {} tokens, {} heads of {} over {}: {}\n", right ? "ok    " : "FAILED",
               capability, e.b, e.t, e.h, e.d, e.k, text);
    return right;
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> built(argv + 1, argv + argc);
    if (const std::string& problem = cuda::cudnn::problem_with_library(); !problem.empty()) {
        fmt::print("skipped: {}\n", problem);
        return 77;
    }
    bool right = true, tried = false;
    const struct { int capability, shared_bytes; } devices[] = {{800, 166912}, {900, 232448}, {1000, 232448}};
    for (const auto& [capability, shared_bytes] : devices) {
        if (std::find(built.begin(), built.end(), std::to_string(capability / 10)) == built.end()) continue;
        tried = true;
        const cudnnBackendDescriptor_t device =
            cuda::cudnn::described_device(description(capability, shared_bytes));
        for (const Extents& e : {Extents{4, 512, 12, 12, 64},
                                 {2, 511, 12, 4, 64},
                                 {1, 2048, 32, 32, 64},
                                 {4, 256, 8, 8, 48},
                                 {1, 1024, 32, 8, 128},
                                 {2, 100, 5, 5, 80}})
            right = has_plans(e, device, capability) && right;
    }
    if (!tried) fmt::print("skipped: no such GPU is described here\n");
    return !tried ? 77 : right ? 0 : 1;
}
