// What this rank computes on. Each back end defines it.
#pragma once

#include <string>

namespace switchyard::backend {

struct Processor {
    std::string
        name;  // "AMD EPYC 9654 96-Core Processor", "NVIDIA H100 80GB HBM3"; empty: none can be used here
    bool is_gpu = false;
    int number = 0;       // of the GPU on its node
    std::string problem;  // why none can be used
};

/// Never throws: commands that compute nothing run on nodes without a GPU.
Processor processor();

}  // namespace switchyard::backend
