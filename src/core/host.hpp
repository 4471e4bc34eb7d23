// The machine that this process runs on.
#pragma once

#include <string>

namespace switchyard {

/// As gethostname() says; "unknown" where it fails.
std::string host_name();

}  // namespace switchyard
