// Signs of life of this process: whoever makes progress gives one, a watchdog looks for them
// (run/watchdog.hpp).
#pragma once

#include <cstdint>

namespace switchyard {

struct SignOfLife {
    const char* doing = "start";
    std::int64_t step = -1;  // -1: of no step
    double time_s = 0;       // seconds_now()
    bool waiting = false;    // for other ranks: see WaitingForOthers
};

/// `doing`: a literal. Cheap (relaxed stores), from any thread.
void sign_of_life(const char* doing, std::int64_t step = -1);
SignOfLife last_sign_of_life();

/// While it lives, this process has done its part and waits for others to do theirs, however long that takes:
/// no sign is expected of it. Whoever works has a watchdog of its own. One at a time, on the main thread.
class WaitingForOthers {
  public:
    WaitingForOthers();
    ~WaitingForOthers();
    WaitingForOthers(const WaitingForOthers&) = delete;
    WaitingForOthers& operator=(const WaitingForOthers&) = delete;
};

}  // namespace switchyard
