#pragma once

#include <algorithm>

#include "core/processor.hpp"

namespace switchyard::testing {

/// Steps of a comparison with a reference: fewer where kernels may be emulated, which takes seconds for few.
inline int reference_steps(int most) {
    return backend::processor().is_gpu ? std::min(most, std::max(8, most / 4)) : most;
}

}  // namespace switchyard::testing
