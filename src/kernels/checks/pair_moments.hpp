// Checks of the arguments of pair_moments.hpp, for all back ends.
#pragma once

#include "kernels/checks/rows.hpp"
#include "kernels/pair_moments.hpp"

namespace switchyard::kernels {

void check_pair_moments(const PairMoments& p);
void check_pair_products(Tensor rows, Tensor pairs);
void check_pair_direction(Tensor first, Tensor second, Tensor corrections);

}  // namespace switchyard::kernels
