// Preloaded into tests under MPICH, whose ranks never give up a core while they wait: with more ranks than
// cores every collective takes some slices of the scheduler, 6 ms in place of 0.1. It sleeps where UCX has
// had nothing to do for long.
#include <dlfcn.h>
#include <time.h>

/// UCX's, which MPICH calls in every turn of its waiting loops.
extern "C" unsigned ucp_worker_progress(void* worker) {
    using Function = unsigned (*)(void*);
    static const auto original = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "ucp_worker_progress"));
    static int idle_turns = 0;
    const unsigned num_events = original(worker);
    idle_turns = num_events > 0 ? 0 : idle_turns + 1;
    constexpr timespec pause{.tv_sec = 0, .tv_nsec = 10000};
    if (idle_turns > 50) nanosleep(&pause, nullptr);
    return num_events;
}
