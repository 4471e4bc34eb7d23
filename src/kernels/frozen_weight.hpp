// Frozen weights are f32 or f64 values or, in bf16 runs, f32 values split into two 16-bit words (as in
// Split-SGD-BF16): hi, the value rounded to bf16 with ties away from zero, and lo, the int16 difference of
// the bit patterns. Products use hi alone; both together are the f32 value, bit for bit.
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

/// Converts between full-precision values (m, n), f32 (f64 in f64 runs), and stored words.
void store_frozen(Tensor value, FrozenWeight);
void load_frozen(FrozenWeight, Tensor value);

/// The factors of scale B A: both dense, of one type, with the r slots as rows.
struct LowRankFactors {
    Tensor a;             // (r, n)
    Tensor b_transposed;  // (r, at least row0 + m)
    double scale = 1;
    std::int64_t row0 = 0;  // the column of b_transposed that belongs to the weight's first row
};

/// The weight that products use instead of a frozen W: row_scale o (base W + scale B diag(gate) A). Merged
/// copies, the check that a switch keeps the function, readers of checkpoints, and exports share this
/// description.
struct EffectiveWeight {
    LowRankFactors factors;  // empty `a`: no product
    double base = 1;
    Tensor gate;       // (r), f32 or f64; empty: ones
    Tensor row_scale;  // (at least factors.row0 + m), f32 or f64; empty: ones

    /// True for W plus a low-rank product, which is what a LoRA file can hold.
    bool plain() const { return base == 1 && gate.empty() && row_scale.empty(); }
    /// The effective weight of the rows from `row0` on.
    EffectiveWeight from_row(std::int64_t row0) const {
        EffectiveWeight rows = *this;
        rows.factors.row0 += row0;
        return rows;
    }
};

/// W = base * W + scale * b_transposed' a on the stored words, in f32 (f64), with one rounding per sum.
/// `scratch`: at least frozen_scratch_bytes(). Here a and b_transposed are in accumulate_type, because they
/// are differences of compute copies.
void add_low_rank(FrozenWeight, const LowRankFactors&, Tensor scratch, double base = 1);

/// merged (m, n, compute type) = the effective weight, rounded once. Factors and B diag(gate) are in the
/// compute type. `scratch` as above.
void merge(FrozenWeight, const EffectiveWeight&, Tensor merged, Tensor scratch);
std::size_t frozen_scratch_bytes(std::int64_t m, std::int64_t n, DType compute);

/// value (m, n; f32 or f64) holds W on entry and the effective weight on return. Each element is summed over
/// slots 0 ... r-1 in order, in f64 with fma, and rounded once, so the bits do not depend on the slice of
/// rows or columns that a rank holds. Factors are in the compute type.
void form_in_order(Tensor value, const EffectiveWeight&);

}  // namespace switchyard::kernels
