// Numbers that are not finite: the first weight that has one, and a uniform way to print NaN.
#pragma once

#include <cmath>
#include <string>

#include "train/train_state.hpp"

namespace switchyard {

/// Name of the first weight with a value that is not finite on some rank; "" if all are finite. Collective.
/// For messages and before a save, because it waits for the back end. Uses the optimizer's squared_norm() as
/// work space.
std::string first_bad_weight(TrainState&);

/// Removes the sign of a NaN, which has no meaning, so that it is always printed in the same way.
inline double without_nan_sign(double x) {
    return std::isnan(x) ? std::fabs(x) : x;
}

}  // namespace switchyard
