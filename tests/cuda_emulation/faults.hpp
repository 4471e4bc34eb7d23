#pragma once

namespace emulation {

/// From now on a bad address is explained before it ends the process. Cheap enough to be called again.
void explain_faults();

}  // namespace emulation
