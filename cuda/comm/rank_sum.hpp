// Sums over ranks on the device, in rank order.
#pragma once

#include <cuda_runtime.h>

#include "core/tensor.hpp"

namespace switchyard::cuda {

/// The values of P ranks for the elements that rank `rank` sums: its own at `own`, those of rank p at
/// `others` + p * stride elements.
struct RankValues {
    const void *own = nullptr, *others = nullptr;
    std::int64_t stride = 0, count = 0;
    int ranks = 1, rank = 0;
};

/// sum[i] = the values of rank 0, 1, ... added in this order; bf16 in f32, rounded once. `sum` may be `own`,
/// or the place of rank `rank` among the others, which is not read.
void sum_in_rank_order(DType, void* sum, const RankValues&, cudaStream_t);

}  // namespace switchyard::cuda
