// Copies between host arrays and back-end memory; blocking.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// tensor <- tensor.bytes() bytes at `host`.
void upload(const void* host, Tensor tensor);
/// `host` <- tensor.bytes() bytes.
void download(Tensor tensor, void* host);

}  // namespace switchyard::kernels
