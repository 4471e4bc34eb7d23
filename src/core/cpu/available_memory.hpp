// How much memory processes of this node can still use, by what Linux says. Private to the CPU back end.
#pragma once

#include <string>

namespace switchyard::backend {

/// The machine's available memory and free swap, or what a control group (batch job, container) leaves,
/// whichever is less. Infinite when the system does not say. `root`: where /proc and /sys are.
double available_bytes(const std::string& root = "");

}  // namespace switchyard::backend
