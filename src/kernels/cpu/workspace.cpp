// Kernels of a CPU work in memory of their threads, which stays in caches (core/cpu/thread_scratch.hpp).
#include "kernels/workspace.hpp"

namespace switchyard::kernels {

std::size_t workspace_bytes() {
    return 0;
}

void lend_workspace(Tensor) {}

void take_back_workspace(Tensor) {}

}  // namespace switchyard::kernels
