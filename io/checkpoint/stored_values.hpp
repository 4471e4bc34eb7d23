// Values as a checkpoint stores them: bf16 as f32, everything else as it is, little-endian, rows without
// padding. Private to io/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/shard.hpp"

namespace switchyard {

DType stored_dtype(DType);
/// Whether values stored as `stored` may be read into `wanted` (then still only where that is exact).
bool readable_as(DType stored, DType wanted);

/// Empty, or what is wrong between a shard and the tensor that holds it.
std::string shard_problem(const Shard&, const Tensor& values);

/// out (count, shard.cols) <- stored form of the shard's rows [begin, begin + count). `scratch` grows as
/// needed.
void pack_rows(const Shard&, const Tensor& values, std::int64_t begin, std::int64_t count,
               std::vector<std::byte>& scratch, std::byte* out);

/// The reverse; padding stays. Returns how many values did not fit exactly.
std::int64_t unpack_rows(const Shard&, Tensor values, DType stored, std::int64_t begin, std::int64_t count,
                         const std::byte* in, std::vector<std::byte>& scratch);

/// The part of a dataset's checksum that comes from stored (rows, cols), whose first element has flat index
/// `first` in a dataset with `global_cols` columns. OpenMP.
std::uint64_t checksum_rows(const std::byte* stored, DType, std::int64_t rows, std::int64_t cols,
                            std::int64_t first, std::int64_t global_cols);

/// Rows of `row_bytes` that make a block which stays in cache between conversion, checksum and write; at
/// least 1.
std::int64_t block_rows(std::int64_t row_bytes);

}  // namespace switchyard
