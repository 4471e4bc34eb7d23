// The revision is looked up at every build (tools/revision.cmake).
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
