// Matrices times the factors of their columns or rows, and quotients and roots of vectors. Computed in f64
// and rounded once.
#pragma once

#include "kernels/rows.hpp"

namespace switchyard::kernels {

/// to (r, w) <- or += scale * from diag(factors); rectangles of ranges of rows, factors (w) f32 or f64. `to`
/// may be `from`.
struct ColumnScaling {
    RowPart from;
    Tensor factors;
    RowPart to;
    double scale = 1;
    bool accumulate = false;
};
void scale_columns(const ColumnScaling&);

/// x (r, n) <- diag(factors) x; factors (r) f32 or f64.
void scale_rows(Tensor x, Tensor factors);

/// out <- a / b, element by element, and 0 where b is 0: all of one size, f32 or f64. `out` may be `a`.
void divide(Tensor a, Tensor b, Tensor out);
/// x <- its square root, 0 for negative numbers; f32 or f64.
void square_root(Tensor x);

/// x (any shape and type) <- x / max(root of squared_norm, least); squared_norm (1) f64. The factor is
/// rounded to the type that x is computed in.
void divide_by_norm(Tensor x, Tensor squared_norm, double least);

}  // namespace switchyard::kernels
