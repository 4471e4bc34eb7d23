// Compiled where NCCL was not found.
#include "core/error.hpp"
#include "cuda/comm/nccl.hpp"

namespace switchyard::cuda {

std::string nccl_version() {
    return "";
}

NcclStart start_nccl(const Comm&, SumOrder) {
    internal_check(false, "NCCL in a program that was built without it");
    return {};
}

}  // namespace switchyard::cuda
