// NCCL, where the program was built with it: nccl.cpp, else without_nccl.cpp.
#pragma once

#include <memory>
#include <string>

#include "cuda/comm/transport.hpp"

namespace switchyard::cuda {

/// "2.28.9"; "" without NCCL.
std::string nccl_version();

/// Collective over ranks that each have a GPU of their own. Throws UserError if NCCL does not start.
std::unique_ptr<Transport> make_nccl(const Comm&, SumOrder);

}  // namespace switchyard::cuda
