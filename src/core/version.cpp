// tools/revision.cmake looks the revision up at every build.
#include "core/version.hpp"

#include "revision.hpp"

namespace switchyard {

Version version() {
    return {SWITCHYARD_VERSION, SWITCHYARD_REVISION};
}

std::string version_text() {
    return "switchyard " + version().number + " (" + version().revision + ")";
}

}  // namespace switchyard
