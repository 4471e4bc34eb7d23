// Preloaded into tests with ranks: ranks that wait sleep a little in place of asking again and again, because
// with more ranks than cores somebody else needs the core. Open MPI yields in every turn of its waiting loops,
// which costs a test of two ranks half of its processor time; MPICH never gives a core up, so that every
// collective takes some slices of the scheduler, 6 ms in place of 0.1.
#include <dlfcn.h>
#include <sys/prctl.h>
#include <time.h>

namespace {

/// A turn of a waiting loop that found nothing, the n-th one in a row. Returns whether it has slept.
bool idle_turn(int n) {
    constexpr int patient = 1000;  // a millisecond: short waits take no longer
    if (n <= patient) return false;
    static thread_local const int precise = prctl(PR_SET_TIMERSLACK, 1000);  // ns; 50,000 otherwise
    const timespec pause{.tv_sec = 0, .tv_nsec = 200'000};
    return precise != 0 || nanosleep(&pause, nullptr) == 0;
}

long now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

/// Open MPI's, once in every turn with --mca mpi_yield_when_idle 1. Who did something else since the last one
/// has found what it waited for.
extern "C" int sched_yield() noexcept {
    static const auto original = reinterpret_cast<int (*)()>(dlsym(RTLD_NEXT, "sched_yield"));
    static thread_local int idle_turns = 0;
    static thread_local long last_ns = 0;
    constexpr long longest_turn_ns = 20'000;
    idle_turns = now_ns() - last_ns > longest_turn_ns ? 0 : idle_turns + 1;
    const int code = idle_turn(idle_turns) ? 0 : original();
    last_ns = now_ns();
    return code;
}

/// UCX's, which MPICH calls in every turn.
extern "C" unsigned ucp_worker_progress(void* worker) {
    using Function = unsigned (*)(void*);
    static const auto original = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "ucp_worker_progress"));
    static thread_local int idle_turns = 0;
    const unsigned num_events = original(worker);
    idle_turns = num_events > 0 ? 0 : idle_turns + 1;
    idle_turn(idle_turns);
    return num_events;
}
