// The version of this program.
#pragma once

#include <string>

namespace switchyard {

struct Version {
    std::string number;    // "0.1.0"
    std::string revision;  // of the source at the time of the build; "unknown" outside a checkout
};
Version version();
/// "switchyard 0.1.0 (a1b2c3d)"
std::string version_text();

}  // namespace switchyard
