// Sums over ranks in rank order, ((v0 + v1) + v2) + ... for each element, so that the bits are the same
// wherever the sum is computed.
#pragma once

#include "core/tensor.hpp"

namespace switchyard {

/// sum[i] = parts[0][i] + parts[1][i] + ... for i < count, overwriting; part p starts at parts + p * stride
/// elements. f64 is summed in f64, f32 in f32, bf16 in f32 and rounded once. Host memory; `sum` may be part 0
/// itself.
void ordered_sum(DType, void* sum, const void* parts, int num_parts, std::int64_t stride, std::int64_t count);

}  // namespace switchyard
