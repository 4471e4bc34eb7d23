// Checks of the arguments of scaled_descent.hpp, for all back ends.
#pragma once

#include "kernels/checks/rows.hpp"
#include "kernels/scaled_descent.hpp"

namespace switchyard::kernels {

/// The rows of `gradient` or `value`.
inline RowPart part_of(const ScaledRows& rows, Tensor tensor) {
    return {tensor, rows.rows, 0, rows.master.dim(1)};
}

void check_rows(const ScaledRows& rows);
void check_growth(Tensor squares, Tensor clip, Tensor previous, Tensor factors);

}  // namespace switchyard::kernels
