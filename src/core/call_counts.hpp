// Counts of what costs time on a device whatever its size: kernel calls, copies to and from the host,
// allocations and collectives (core/calls.hpp). Calls are counted on the main thread, allocations on any
// thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/calls.hpp"
#include "core/phase.hpp"

namespace switchyard {

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
