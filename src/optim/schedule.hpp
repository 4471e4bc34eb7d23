// Learning-rate schedule: linear warm-up, then cosine, WSD (warm-up, stable, decay) or constant.
#pragma once

#include "config/config.hpp"

namespace switchyard {

/// Factor on the peak rate for the update of step `step` (0-based) of `steps`. Warm-up reaches 1 at its last
/// step. cosine: falls to min_lr_ratio over the rest (Loshchilov & Hutter 2017). wsd: falls linearly to
/// min_lr_ratio over the last decay_ratio of the steps (Hu et al. 2024).
double lr_schedule(const OptimConfig&, std::int64_t step, std::int64_t steps);

}  // namespace switchyard
