// Checks of the arguments of frozen_weight.hpp, for all back ends.
#pragma once

#include "kernels/frozen_weight.hpp"

namespace switchyard::kernels {

/// True if the weight has two words an element.
inline bool is_split(const FrozenWeight& w) {
    return w.hi.dtype() == DType::bf16;
}

/// value: the full-precision values of w, in any shape of that size.
void check_value(Tensor value, const FrozenWeight& w);
void check_add_low_rank(const FrozenWeight&, const LowRankFactors&);
void check_merge(const FrozenWeight&, const EffectiveWeight&, Tensor merged);
/// Returns the type of the factors.
DType check_in_order(Tensor value, const EffectiveWeight&);

}  // namespace switchyard::kernels
