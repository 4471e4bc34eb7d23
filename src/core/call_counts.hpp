// Counts of what costs time on a device whatever its size: kernel calls, copies to and from the host,
// allocations and collectives. Counting is off unless SWITCHYARD_COUNT_CALLS=1, and then costs one branch per
// call. The first line of every kernel is count_kernel(__func__). Calls are counted on the main thread,
// allocations on any thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/last_calls.hpp"
#include "core/phase.hpp"

namespace switchyard {

/// host_read: back-end memory is copied to the host, which waits for it. allocation: of back-end memory.
/// launch: of a device; a kernel may need several, and none on a CPU.
enum class Call { kernel, host_read, upload, allocation, collective, launch };
inline constexpr int num_calls = 6;

struct CallCounts {
    std::array<std::int64_t, num_calls> calls{};
    std::map<std::string, std::int64_t> kernels;  // calls by name

    std::int64_t operator[](Call call) const { return calls[static_cast<int>(call)]; }
};

/// The counts of one step, by phase and in total.
struct StepCalls {
    std::array<CallCounts, num_phases> phases;

    const CallCounts& operator[](Phase phase) const { return phases[static_cast<int>(phase)]; }
    std::int64_t total(Call) const;
};

namespace detail {
extern bool counting_calls;
void note_call(Call, const char* name);
}  // namespace detail

inline bool counting_calls() {
    return detail::counting_calls;
}
inline void count_call(Call call) {
    if (detail::counting_calls) detail::note_call(call, nullptr);
}
/// Counts the call and notes it for the watchdog; `name` is __func__.
inline void count_kernel(const char* name) {
    note_kernel(name);
    if (detail::counting_calls) detail::note_call(Call::kernel, name);
}

/// Switches counting on or off and resets the counts. For tests; a run reads the environment variable.
void count_calls(bool on);

/// Lives around a step: resets the counts of the step at its start and keeps them when it ends without an
/// exception.
class CountedStep {
  public:
    CountedStep();
    ~CountedStep();
    CountedStep(const CountedStep&) = delete;
    CountedStep& operator=(const CountedStep&) = delete;
};
/// Assigns the calls since the end of the last phase (or the start of the step) to `phase`. PhaseTimer::lap()
/// calls it.
void end_counted_phase(Phase phase);

/// Calls since count_calls(true), the end of the last phase or the start of the step, whichever came last.
CallCounts calls_since_phase();
StepCalls calls_of_last_step();

/// A table by phase for people: the counts of the last step, and the largest of all steps where that differs.
/// Lines without counts are left out.
std::vector<std::string> call_count_lines();

}  // namespace switchyard
