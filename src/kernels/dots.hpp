// Dot products of the rows, or of the columns, of two matrices, and sums of columns, added to vectors:
// gradients of factors of rows and slots and of biases, and norms of rows. Sums run in f64 in an order that
// depends on the shape alone; the result is rounded once.
#pragma once

#include "core/tensor.hpp"
#include "kernels/frozen_weight.hpp"

namespace switchyard::kernels {

/// out (m), f32 or f64, += scale * sum over t of a[t, i] b[t, i]; a and b (N, m).
void add_column_dots(Tensor a, Tensor b, double scale, Tensor out);
/// out (m), f32 or f64, += scale * sum over t of a[t, i]; a (N, m).
void add_column_sums(Tensor a, double scale, Tensor out);
/// out (r), f32 or f64, += scale * sum over j of a[k, j] b[k, j]; a and b (r, n).
void add_row_dots(Tensor a, Tensor b, double scale, Tensor out);
/// out (m), accumulate_type, <- sum over j of W[i, j]^2 of the stored words (m, n).
void row_squared_norms(FrozenWeight, Tensor out);

}  // namespace switchyard::kernels
