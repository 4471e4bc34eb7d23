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

/// scale B A for rows of a weight: both (r, .) "slot-major", one type. A and B are dense.
struct LowRankFactors {
    Tensor a;             // (r, n)
    Tensor b_transposed;  // (r, at least row0 + m)
    double scale = 1;
    std::int64_t row0 = 0;  // the weight's first row here: a column of b_transposed
};

/// What products use in place of a frozen W: row_scale o (base W + scale B diag(gate) A). The one description
/// that merged copies, the proof that a switch keeps the function, readers of checkpoints and exports share.
struct EffectiveWeight {
    LowRankFactors factors;  // a empty: no product
    double base = 1;
    Tensor gate;       // (r), f32 or f64; empty: ones
    Tensor row_scale;  // (at least factors.row0 + m), f32 or f64; empty: ones

    /// W itself and a low-rank product, as every LoRA file means it.
    bool plain() const { return base == 1 && gate.empty() && row_scale.empty(); }
    /// Of the rows from `row0` on of those described.
    EffectiveWeight from_row(std::int64_t row0) const {
        EffectiveWeight rows = *this;
        rows.factors.row0 += row0;
        return rows;
    }
};

/// W += scale * b_transposed' a on the stored words, in f32 (f64), one rounding per element. `scratch`: at
/// least frozen_scratch_bytes(). a and b_transposed here are in accumulate_type (differences of compute
/// copies).
void add_low_rank(FrozenWeight, const LowRankFactors&, Tensor scratch);

/// merged (m, n, compute type) = the effective weight, rounded once; factors in the compute type (B
/// diag(gate) too). scratch as above.
void merge(FrozenWeight, const EffectiveWeight&, Tensor merged, Tensor scratch);
std::size_t frozen_scratch_bytes(std::int64_t m, std::int64_t n, DType compute);

/// value (m, n; f32 or f64), W on entry <- the effective weight, each element summed over slots 0 ... r-1 in
/// that order in f64 with fma and rounded once: the same bits whatever slice of rows or columns a rank holds.
/// Factors in the compute type.
void form_in_order(Tensor value, const EffectiveWeight&);

}  // namespace switchyard::kernels
