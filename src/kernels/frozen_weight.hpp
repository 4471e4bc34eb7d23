// Frozen weights: f32 or f64 values, or in bf16 runs an f32 value split in two 16-bit words (the split of
// Split-SGD-BF16): hi, the value rounded to bf16 with ties away from zero, and lo, the int16 difference of
// the bit patterns. hi alone serves products; together they are the f32 value, bit for bit.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// (m, n): `hi` in the compute type; `lo` i16, empty unless the compute type is bf16.
struct FrozenWeight {
    Tensor hi, lo;
    FrozenWeight rows(std::int64_t begin, std::int64_t count) const {
        return {hi.rows(begin, count), lo.empty() ? lo : lo.rows(begin, count)};
    }
};

/// Full-precision value <-> stored words; `value` (m, n) f32 (f64 in f64 runs).
void store_frozen(Tensor value, FrozenWeight);
void load_frozen(FrozenWeight, Tensor value);

/// Rows from B transposed and A: both (r, .) "slot-major", compute type.
struct LowRankFactors {
    Tensor a;             // (r, n)
    Tensor b_transposed;  // (r, m)
    double scale = 1;
};

/// W += scale * b_transposed' a on the stored words, in f32 (f64), one rounding per element. `scratch`: at
/// least frozen_scratch_bytes(). a and b_transposed here are in accumulate_type (differences of compute
/// copies).
void add_low_rank(FrozenWeight, const LowRankFactors&, Tensor scratch);

/// merged (m, n, compute type) = round(W + scale * B A); factors in the compute type. scratch as above.
void merge(FrozenWeight, const LowRankFactors&, Tensor merged, Tensor scratch);
std::size_t frozen_scratch_bytes(std::int64_t m, std::int64_t n, DType compute);

/// value (m, n; f32 or f64) -= scale * B A, each element summed over slots 0 ... r-1 in that order in f64
/// with fma and rounded once: the same bits whatever slice of rows or columns a rank holds. Factors in the
/// compute type.
void subtract_low_rank_in_order(Tensor value, const LowRankFactors&);

}  // namespace switchyard::kernels
