// What this process called last: the phase of its step, a kernel, a collective. When nothing comes back, the
// watchdog (run/watchdog.hpp) says it. Noting costs a few relaxed stores and no allocation; every name is a
// literal or lives as long as the process.
#pragma once

#include <atomic>
#include <string>

namespace switchyard {

/// begun: the host went on to other work. ended: the host went on for good, though a device may still be at
/// it.
enum class CollectiveState { begun, awaited, ended };

struct CollectiveCall {
    const char* name = nullptr;   // null: none was begun
    const char* group = nullptr;  // of its traffic; null for values of the host
    int ranks = 0;
    double bytes = 0;  // of what travels; 0 where it is not worth a word
};

struct LastCalls {
    const char* phase = nullptr;   // null: outside a step
    const char* kernel = nullptr;  // its family; null: none was called
    CollectiveCall collective;     // that was begun, awaited or ended last
    CollectiveState state = CollectiveState::ended;
    bool device_awaited = false;  // the host waits for a device
};

namespace detail {
extern std::atomic<const char*> last_kernel;
}

inline void note_kernel(const char* family) {
    detail::last_kernel.store(family, std::memory_order_relaxed);
}
void note_phase(const char* phase);
void note_collective(const CollectiveCall&, CollectiveState);

/// The host waits for a device while an object of this class lives.
class WaitingForDevice {
  public:
    WaitingForDevice();
    ~WaitingForDevice();
    WaitingForDevice(const WaitingForDevice&) = delete;
    WaitingForDevice& operator=(const WaitingForDevice&) = delete;
};

/// From any thread.
LastCalls last_calls();
/// "phase forward, last kernel: matmul, ..."; empty where nothing was called.
std::string text_of(const LastCalls&);

}  // namespace switchyard
