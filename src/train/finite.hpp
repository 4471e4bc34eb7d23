// Numbers that are no longer finite: which weight, and a value as people should read it.
#pragma once

#include <cmath>
#include <string>

#include "train/train_state.hpp"

namespace switchyard {

/// Name of the first weight that is not finite in some rank's part, "" if all are. Collective; for messages
/// and before a save, as it waits for the back end. Uses the optimizer's squared_norm() as work space.
std::string first_bad_weight(TrainState&);

/// The sign of a NaN means nothing: it is written in one way.
inline double without_nan_sign(double x) {
    return std::isnan(x) ? std::fabs(x) : x;
}

}  // namespace switchyard
