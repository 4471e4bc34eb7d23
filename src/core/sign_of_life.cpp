// The last sign is global, because a process has one. Its three values are stored separately, so they may
// belong to different signs for some nanoseconds.
#include "core/sign_of_life.hpp"

#include <atomic>

#include "core/timer.hpp"

namespace switchyard {
namespace {

std::atomic<const char*> last_doing{"start"};
std::atomic<std::int64_t> last_step{-1};
std::atomic<double> last_time_s{0};
std::atomic<bool> waiting{false};
thread_local bool silent = false;

}  // namespace

void sign_of_life(const char* doing, std::int64_t step) {
    if (silent) return;
    last_doing.store(doing, std::memory_order_relaxed);
    last_step.store(step, std::memory_order_relaxed);
    last_time_s.store(seconds_now(), std::memory_order_relaxed);
}

void no_signs_of_life_from_this_thread() {
    silent = true;
}

SignOfLife last_sign_of_life() {
    return {last_doing.load(std::memory_order_relaxed), last_step.load(std::memory_order_relaxed),
            last_time_s.load(std::memory_order_relaxed), waiting.load(std::memory_order_relaxed)};
}

WaitingForOthers::WaitingForOthers() {
    waiting.store(true, std::memory_order_relaxed);
}

WaitingForOthers::~WaitingForOthers() {
    last_time_s.store(seconds_now(), std::memory_order_relaxed);
    waiting.store(false, std::memory_order_relaxed);
}

}  // namespace switchyard
