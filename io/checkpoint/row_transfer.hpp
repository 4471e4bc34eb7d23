// Rows of tensors to and from host memory, as many at a time as a staging tensor holds: one kernel call and
// one transfer for all of them, or the transfer alone where the rows follow each other already.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/arena.hpp"
#include "kernels/rows.hpp"

namespace switchyard {

/// Where a row lies: one row of a tensor, or some of its columns.
using RowPlace = std::function<kernels::RowPart(std::int32_t row)>;

class RowTransfer {
  public:
    /// host (rows, cols) of `dtype` <- the rows, converted.
    void get(const RowPlace&, std::span<const std::int32_t> rows, std::int64_t cols, DType dtype,
             std::byte* host);
    /// The reverse.
    void set(const RowPlace&, std::span<const std::int32_t> rows, std::int64_t cols, DType dtype,
             const std::byte* host);

  private:
    Tensor staging(std::int64_t rows, std::int64_t cols, DType dtype);

    Arena memory_;
    Tensor bytes_;
};

}  // namespace switchyard
