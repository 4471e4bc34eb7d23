// Cholesky factors of small symmetric matrices, and rows of large ones divided by them: preconditioners of
// r x r. Everything is computed in f64, and its order depends on shapes alone.
#pragma once

#include <span>

#include "kernels/rows.hpp"

namespace switchyard::kernels {

inline constexpr std::int64_t most_cholesky_rows = 1024;

/// grams (k, r, r) f64, k symmetric matrices of 1 to 1024 rows, <- U in the upper triangle of each and U' in
/// the lower one, with U' U = gram + damping I. defects (k) f64 <- 0, or p + 1 where pivot p is the first
/// that is not positive and finite: that gram is no longer defined, and may hold NaN.
void cholesky(Tensor grams, double damping, Tensor defects);

/// Each row g of `rows` (any number, r), f32, bf16 or f64, <- g (U' U)^-1, rounded once; factor (r, r) as
/// cholesky() leaves it.
struct DividedRows {
    Tensor factor;
    RowPart rows;
};
void solve_rows(std::span<const DividedRows>);

}  // namespace switchyard::kernels
