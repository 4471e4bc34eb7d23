// Counts of what costs time on a device whatever its size: kernel calls, copies to and from the host, memory
// asked for, collectives. Off unless SWITCHYARD_COUNT_CALLS=1; then one branch a call. Every kernel's first
// line is count_kernel(__func__). Calls are counted from the main thread, allocations from any.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/phase.hpp"

namespace switchyard {

/// host_read: back-end memory comes to the host, which waits for it. allocation: of back-end memory.
enum class Call { kernel, host_read, upload, allocation, collective };
inline constexpr int num_calls = 5;

struct CallCounts {
    std::array<std::int64_t, num_calls> calls{};
    std::map<std::string, std::int64_t> kernels;  // calls by name

    std::int64_t operator[](Call call) const { return calls[static_cast<int>(call)]; }
};

/// Of one step, and of all its phases.
struct StepCalls {
    std::array<CallCounts, num_phases> phases;

    const CallCounts& operator[](Phase phase) const { return phases[static_cast<int>(phase)]; }
    std::int64_t total(Call) const;
};

namespace detail {
extern bool counting_calls;
void note_call(Call, const char* name);
}  // namespace detail

inline void count_call(Call call) {
    if (detail::counting_calls) detail::note_call(call, nullptr);
}
inline void count_kernel(const char* name) {
    if (detail::counting_calls) detail::note_call(Call::kernel, name);
}

/// Switches counting on or off and forgets what was counted. For tests: a run asks the environment.
void count_calls(bool on);

/// Around a step: forgets what was called before it and keeps its counts when it ends without an exception.
class CountedStep {
  public:
    CountedStep();
    ~CountedStep();
    CountedStep(const CountedStep&) = delete;
    CountedStep& operator=(const CountedStep&) = delete;
};
/// What was called since the last phase or the start of the step belongs to `phase`; PhaseTimer::lap() says
/// so.
void end_counted_phase(Phase phase);

/// What was called since count_calls(true), the end of the last phase, or the start of the step.
CallCounts calls_since_phase();
StepCalls calls_of_last_step();

/// A table by phase for people: counts of the last step, and the most of any step where that differs. No
/// lines where nothing was counted.
std::vector<std::string> call_count_lines();

}  // namespace switchyard
