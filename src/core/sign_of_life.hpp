// Signs of life of this process: whoever makes progress gives one, a watchdog looks for them
// (run/watchdog.hpp).
#pragma once

#include <cstdint>

namespace switchyard {

struct SignOfLife {
    const char* doing = "start";
    std::int64_t step = -1;  // -1: of no step
    double time_s = 0;       // seconds_now()
};

/// `doing`: a literal. Cheap (relaxed stores), from any thread.
void sign_of_life(const char* doing, std::int64_t step = -1);
SignOfLife last_sign_of_life();

}  // namespace switchyard
