// Checks of the arguments of outputs.hpp, for all back ends.
#pragma once

#include "kernels/checks/tensors.hpp"
#include "kernels/outputs.hpp"

namespace switchyard::kernels {

void check_output(const FinishedOutput& o);

}  // namespace switchyard::kernels
