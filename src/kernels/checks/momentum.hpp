// Checks of the arguments of momentum.hpp, for all back ends.
#pragma once

#include "kernels/checks/tensors.hpp"
#include "kernels/momentum.hpp"

namespace switchyard::kernels {

void check_momentum(const MomentumStep& step, Tensor clip);
void check_directed(const DirectedStep& step, Tensor clip);

}  // namespace switchyard::kernels
