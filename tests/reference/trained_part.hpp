// What references of methods with adapters train.
#pragma once

#include "reference/switchlora.hpp"

namespace switchyard::reference {

/// What a matrix trains, with its gradient. `transposed`: checkpoints hold the transpose; eps: 0 for that of
/// the run.
struct TrainedPart {
    std::string suffix;
    Trained* trained;
    Array* gradient;
    bool transposed = false, decays = true;
    double eps = 0;
};

}  // namespace switchyard::reference
