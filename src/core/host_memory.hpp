// How much memory the processes of this node can still use, as Linux reports it.
#pragma once

#include <string>

namespace switchyard {

/// The machine's available memory and free swap, or what a control group (batch job, container) leaves,
/// whichever is less. Infinite if the system does not report it. `root`: the folder in which /proc and /sys
/// lie; tests pass their own.
double available_bytes(const std::string& root = "");

}  // namespace switchyard
