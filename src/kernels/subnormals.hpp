// A CPU takes a hundred times as long for a subnormal number, and gradients of a saturated model are full of
// them.
#pragma once

#include <cstdint>

namespace switchyard::kernels {

/// While an object of this class lives, all threads of this rank treat subnormal operands and results as
/// zeros (x86: DAZ and FTZ; Arm: FZ). No effect on other processors and on devices. Objects may nest.
class FlushSubnormals {
  public:
    FlushSubnormals();
    ~FlushSubnormals();
    FlushSubnormals(const FlushSubnormals&) = delete;
    FlushSubnormals& operator=(const FlushSubnormals&) = delete;

  private:
    std::uint64_t before_;  // control register of the calling thread
};

/// True if FlushSubnormals has an effect here.
bool can_flush_subnormals();

}  // namespace switchyard::kernels
