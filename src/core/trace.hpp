// What a profiler of the back end's device is told: names of spans of time, and when to record. Without a
// profiler, or on a back end that has none, nothing happens.
#pragma once

namespace switchyard::backend {

/// Spans nest; they are named on the thread that calls.
void begin_range(const char* name);
void end_range();

/// Between the two a profiler records that was told to wait for it.
void begin_capture();
void end_capture();

}  // namespace switchyard::backend
