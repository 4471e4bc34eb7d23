// On the CPU both sides are host memory.
#include "kernels/transfer.hpp"

#include <cstring>

namespace switchyard::kernels {

void upload(const void* host, Tensor tensor) {
    if (!tensor.empty()) std::memcpy(tensor.raw(), host, tensor.bytes());
}

void download(Tensor tensor, void* host) {
    if (!tensor.empty()) std::memcpy(host, tensor.raw(), tensor.bytes());
}

}  // namespace switchyard::kernels
