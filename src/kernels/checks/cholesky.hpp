// Checks of the arguments of cholesky.hpp, for all back ends.
#pragma once

#include "kernels/checks/rows.hpp"
#include "kernels/cholesky.hpp"

namespace switchyard::kernels {

void check_grams(Tensor grams, Tensor defects);

/// r, which is the same for all items; 0 without items.
std::int64_t check_divided(std::span<const DividedRows> items);

}  // namespace switchyard::kernels
