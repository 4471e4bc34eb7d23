// The schedule that a run's configuration means for a matrix (m, n).
#pragma once

#include <algorithm>

#include "config/option_table.hpp"
#include "methods/switch_schedule.hpp"

namespace switchyard::testing {

inline SwitchSettings switch_settings(const Config& config, std::int64_t m, std::int64_t n) {
    const MethodConfig& method = config.method;
    SwitchSettings s;
    s.low_rank = option_integer(method, "rank");
    s.num_candidates = std::min(m, n);
    s.interval = option_real(method, "switch_interval");
    s.ratio = option_real(method, "switch_ratio");
    s.freeze_steps = option_integer(method, "freeze_steps");
    s.random_order = option_text(method, "switch_order") == "random";
    s.steps = config.run.steps;
    s.seed = config.run.seed;
    return s;
}

}  // namespace switchyard::testing
