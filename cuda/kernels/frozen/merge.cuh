// Private to the CUDA kernels: merging by tensor cores.
#pragma once

#include "kernels/frozen_weight.hpp"

namespace switchyard::kernels {

/// merged (m, n) bf16 = the effective weight of a w of two words, with factors in bf16. Arguments are
/// checked.
void merge_split(FrozenWeight w, const EffectiveWeight&, Tensor merged);

}  // namespace switchyard::kernels
