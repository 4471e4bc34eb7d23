// On the CPU both sides are host memory.
#include "kernels/transfer.hpp"

#include <cstring>

#include "core/call_counts.hpp"
#include "kernels/checks.hpp"

namespace switchyard::kernels {

void upload(const void* host, Tensor tensor) {
    count_call(Call::upload);
    if (tensor.empty()) return;
    check_owned(tensor);
    std::memcpy(tensor.raw(), host, tensor.bytes());
}

void download(Tensor tensor, void* host) {
    count_call(Call::host_read);
    if (tensor.empty()) return;
    check_owned(tensor);
    std::memcpy(host, tensor.raw(), tensor.bytes());
}

}  // namespace switchyard::kernels
