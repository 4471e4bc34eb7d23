// Values as a checkpoint stores them: bf16 as f32, everything else as it is, little-endian, rows without
// padding. Private to io/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/shard.hpp"
#include "io/checkpoint/checkpoint_file.hpp"

namespace switchyard {

DType stored_dtype(DType);
/// Whether values stored as `stored` may be read into `wanted` (then still only where that is exact).
bool readable_as(DType stored, DType wanted);

/// This rank's part of a dataset where it lies, in back-end or in host memory: at least shard.rows by
/// shard.cols; the rest is padding.
class PartValues {
  public:
    PartValues(const Shard& shard, Tensor values) : shard_(shard), tensor_(values) {}
    PartValues(const Shard& shard, const HostBlock& values)
        : shard_(shard), tensor_(nullptr, values.dtype, values.shape), host_(values.data), on_host_(true) {}

    DType dtype() const { return tensor_.dtype(); }
    /// Empty, or what is wrong between the shard and what holds it.
    std::string problem() const;
    /// out (count, shard.cols) <- stored form of the shard's rows [begin, begin + count).
    void pack(std::int64_t begin, std::int64_t count, std::byte* out);
    /// The reverse; padding stays. Returns how many values did not fit exactly.
    std::int64_t unpack(DType stored, std::int64_t begin, std::int64_t count, const std::byte* in);

  private:
    std::int64_t pitch() const;  // columns, padding included
    Tensor rows(std::int64_t begin, std::int64_t count) const;
    std::byte* host_rows(std::int64_t begin) const;
    std::byte* scratch_of(std::size_t bytes);

    Shard shard_;
    Tensor tensor_;  // without memory where the values are on the host
    void* host_ = nullptr;
    bool on_host_ = false;
    std::vector<std::byte> scratch_;
};

/// to[i] <- from[i] for `count` values; returns how many do not come back bit for bit.
std::int64_t convert_values(DType from, DType to, const std::byte* in, std::byte* out, std::int64_t count);

/// The part of a dataset's checksum that comes from stored (rows, cols), whose first element has flat index
/// `first` in a dataset with `global_cols` columns. OpenMP.
std::uint64_t checksum_rows(const std::byte* stored, DType, std::int64_t rows, std::int64_t cols,
                            std::int64_t first, std::int64_t global_cols);

/// Rows of `row_bytes` that make a block which stays in cache between conversion, checksum and write; at
/// least 1.
std::int64_t block_rows(std::int64_t row_bytes);

}  // namespace switchyard
