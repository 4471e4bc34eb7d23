// Signs of life of this process. Code that makes progress gives them; the watchdog (run/watchdog.hpp) reads
// them.
#pragma once

#include <cstdint>

namespace switchyard {

struct SignOfLife {
    const char* doing = "start";
    std::int64_t step = -1;  // -1: outside a step
    double time_s = 0;       // seconds_now()
    bool waiting = false;    // for other ranks, see WaitingForOthers
};

/// `doing` must be a string literal. Cheap (relaxed stores); may be called from any thread.
void sign_of_life(const char* doing, std::int64_t step = -1);
/// From now on this thread gives none: its work says nothing about whether the run goes on.
void no_signs_of_life_from_this_thread();
SignOfLife last_sign_of_life();

/// While an object of this class lives, this process has done its part and waits for other ranks, however
/// long that takes. No sign is expected of it, because the ranks that still work have watchdogs of their own.
/// One object at a time, on the main thread.
class WaitingForOthers {
  public:
    WaitingForOthers();
    ~WaitingForOthers();
    WaitingForOthers(const WaitingForOthers&) = delete;
    WaitingForOthers& operator=(const WaitingForOthers&) = delete;
};

}  // namespace switchyard
