// Rows of tensors, wherever they lie, to and from host memory.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "kernels/rows.hpp"

namespace switchyard {

/// Where a row lies: one row of a tensor, or some of its columns.
using RowPlace = std::function<kernels::RowPart(std::int32_t row)>;

/// host (rows, columns of one) of `dtype` <- the rows, converted.
void get_rows(const RowPlace&, std::span<const std::int32_t> rows, DType dtype, std::byte* host);
/// The reverse.
void set_rows(const RowPlace&, std::span<const std::int32_t> rows, DType dtype, const std::byte* host);

}  // namespace switchyard
