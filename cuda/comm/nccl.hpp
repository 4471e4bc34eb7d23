// NCCL, where the program was built with it: nccl.cpp, else without_nccl.cpp.
#pragma once

#include <memory>
#include <string>

#include "cuda/comm/transport.hpp"

namespace switchyard::cuda {

/// "2.28.9"; "" without NCCL.
std::string nccl_version();

struct NcclStart {
    std::unique_ptr<Transport> transport;  // null on all ranks where NCCL does not start on one
    std::string problem;                   // then: "rank 1: unhandled system error", the same on all
};
/// Collective over ranks that each have a GPU of their own.
NcclStart start_nccl(const Comm&, SumOrder);

}  // namespace switchyard::cuda
