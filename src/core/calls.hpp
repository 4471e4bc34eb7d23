// What a kernel does with its first line, count_kernel(__func__), and what else is counted where it happens.
// Counting is off unless SWITCHYARD_COUNT_CALLS=1, and then costs one branch per call; core/call_counts.hpp
// has the counts.
#pragma once

#include "core/last_calls.hpp"

namespace switchyard {

/// host_read: back-end memory is copied to the host, which waits for it. allocation: of back-end memory.
/// launch: of a device; a kernel may need several, and none on a CPU.
enum class Call { kernel, host_read, upload, allocation, collective, launch };
inline constexpr int num_calls = 6;

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

}  // namespace switchyard
