// Initial values from Philox, keyed by stream and global element index, so that every layout gets the same
// numbers.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// The position of a local 2-D tensor (rows, cols; padding included) in the global one. Elements outside
/// valid_rows x valid_cols are padding and become zero. Global index = (row0 + i) * global_cols + col0 + j.
struct Region {
    std::int64_t global_cols = 0, row0 = 0, col0 = 0, valid_rows = 0, valid_cols = 0;
};

/// Normal with mean 0, drawn in f64 and rounded to the tensor's dtype (bf16 through f32).
void fill_normal(Tensor, const Region&, std::uint64_t key, double std);
/// Uniform in (-bound, bound).
void fill_uniform(Tensor, const Region&, std::uint64_t key, double bound);

/// x (rows, cols) += scale row_scale[i] z, z the numbers of fill_normal with std 1; the product is rounded to
/// accumulate_type, the sum to x's type. row_scale (rows) in accumulate_type. Padding is left as it is.
void add_normal(Tensor x, const Region&, std::uint64_t key, double scale, Tensor row_scale);

}  // namespace switchyard::kernels
