// The factors on the peak learning rate.
#include "optim/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.hpp"

namespace switchyard {

double lr_schedule(const OptimConfig& optim, std::int64_t step, std::int64_t steps) {
    const std::int64_t warmup = std::min(optim.warmup_steps, steps);
    if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);
    const double low = optim.min_lr_ratio;
    if (optim.schedule == "cosine") {
        const double rest = std::max<double>(1, static_cast<double>(steps - warmup));
        const double progress = std::min(1.0, static_cast<double>(step - warmup) / rest);
        return low + (1 - low) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
    }
    if (optim.schedule == "wsd") {
        const double decay = std::max(1.0, optim.decay_ratio * static_cast<double>(steps));
        const double begin = static_cast<double>(steps) - decay;
        const double progress = std::clamp((static_cast<double>(step) - begin) / decay, 0.0, 1.0);
        return 1 + (low - 1) * progress;
    }
    internal_check(optim.schedule == "constant", "unknown schedule {}", optim.schedule);
    return 1;
}

}  // namespace switchyard
