// The machine that this process runs on.
#pragma once

#include <string>

namespace switchyard {

/// The name that gethostname() returns, or "unknown" if it fails.
std::string host_name();

/// The model of the processor as Linux names it.
std::string cpu_name();

}  // namespace switchyard
