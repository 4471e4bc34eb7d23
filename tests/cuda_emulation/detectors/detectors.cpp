// detectors NAME planted|sound runs one fault; --list prints name, flavour and message of all; --order prints
// the order in which 64 threads run.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "planted.hpp"

namespace detectors {

std::vector<Fault>& all_faults() {
    static std::vector<Fault> all;
    return all;
}

Fault::Fault(const char* name, std::vector<Finder> finders, void (*run)(bool planted))
    : name(name), finders(std::move(finders)), run(run) {
    all_faults().push_back(*this);
}

void expect(bool right) {
    if (right) return;
    std::fprintf(stderr, "wrong result\n");
    std::_Exit(4);
}

float* device_numbers(int count) {
    void* memory = nullptr;
    SWITCHYARD_CUDA(cudaMalloc(&memory, static_cast<std::size_t>(count) * sizeof(float)));
    return static_cast<float*>(memory);
}

std::vector<float> read(const float* device, int count) {
    std::vector<float> out(static_cast<std::size_t>(count));
    SWITCHYARD_CUDA(cudaMemcpyAsync(out.data(), device, out.size() * sizeof(float), cudaMemcpyDeviceToHost,
                                    compute_stream()));
    SWITCHYARD_CUDA(cudaStreamSynchronize(compute_stream()));
    return out;
}

}  // namespace detectors

int main(int argc, char** argv) {
    using namespace detectors;
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
        for (const Fault& fault : all_faults())
            for (const Fault::Finder& finder : fault.finders)
                std::printf("%s\t%s\t%s\n", fault.name, finder.flavour, finder.says);
        return 0;
    }
    if (argc == 2 && std::strcmp(argv[1], "--order") == 0) {
        emulation::run_kernel(1, 64, 0, [] { std::printf("%u ", threadIdx.x); });
        return 0;
    }
    for (const Fault& fault : all_faults())
        if (argc == 3 && std::strcmp(argv[1], fault.name) == 0) {
            fault.run(std::strcmp(argv[2], "planted") == 0);
            std::printf("nothing found\n");
            return 0;
        }
    std::fprintf(stderr, "usage: detectors --list | --order | NAME planted|sound\n");
    return 2;
}
