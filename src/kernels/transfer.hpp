// Copies between host arrays and back-end memory; blocking.
#pragma once

#include <span>

#include "core/tensor.hpp"
#include "kernels/rows.hpp"

namespace switchyard::kernels {

/// tensor <- tensor.bytes() bytes at `host`.
void upload(const void* host, Tensor tensor);
/// `host` <- tensor.bytes() bytes.
void download(Tensor tensor, void* host);

/// Rectangles of consecutive rows and equal widths, which lie row after row as `dtype` at `host`: brought
/// there, and the reverse. Values are converted as copies of rows are.
void download_rows(std::span<const RowPart>, DType dtype, void* host);
void upload_rows(const void* host, DType dtype, std::span<const RowPart>);

}  // namespace switchyard::kernels
