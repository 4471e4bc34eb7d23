// Sums over ranks in rank order: element by element ((v0 + v1) + v2) + ..., the same bits wherever it is
// computed.
#pragma once

#include "core/tensor.hpp"

namespace switchyard {

/// sum[i] = parts[0][i] + parts[1][i] + ... for i < count, overwriting; part p starts at parts + p * stride
/// elements. f32 is summed in f32, f64 in f64, bf16 in f32 and rounded once. `sum` may be part 0 itself; host
/// memory.
void ordered_sum(DType, void* sum, const void* parts, int num_parts, std::int64_t stride, std::int64_t count);

}  // namespace switchyard
