// The machine that this process runs on.
#pragma once

#include <string>

namespace switchyard {

/// As gethostname() says; "unknown" where it fails.
std::string host_name();

/// Resident memory of this process in bytes, now and at most since start or reset_peak_resident().
double resident_bytes();
double peak_resident_bytes();
void reset_peak_resident();

}  // namespace switchyard
