// Checks of the arguments of magnitudes.hpp, for all back ends.
#pragma once

#include "kernels/checks/rows.hpp"
#include "kernels/magnitudes.hpp"

namespace switchyard::kernels {

/// Returns the type of the elements.
DType check_histogram(std::span<const RowPart> parts, int byte, Tensor found, Tensor counts);

void check_selection(Tensor counts, Tensor found);
void check_dropped(std::span<const Dropped> items, Tensor limits);

}  // namespace switchyard::kernels
