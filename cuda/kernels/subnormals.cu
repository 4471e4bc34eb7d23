// Nothing to do: a GPU takes no longer for a subnormal number, and kernels keep them.
#include "kernels/subnormals.hpp"

namespace switchyard::kernels {

FlushSubnormals::FlushSubnormals() : before_(0) {}
FlushSubnormals::~FlushSubnormals() = default;

bool can_flush_subnormals() {
    return false;
}

}  // namespace switchyard::kernels
