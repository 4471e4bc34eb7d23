// On the CPU both sides are host memory.
#include "kernels/transfer.hpp"

#include <cstring>

#include "core/backend_memory.hpp"
#include "core/call_counts.hpp"
#include "core/error.hpp"

namespace switchyard::kernels {
namespace {

/// Refuses tensors over host memory, which would work on this back end only.
void check_owned(Tensor tensor) {
    internal_check(backend::owns(tensor.raw(), tensor.bytes()),
                   "transfer of a tensor {} {} that does not lie in back-end memory", tensor.shape(),
                   name_of(tensor.dtype()));
}

}  // namespace

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
