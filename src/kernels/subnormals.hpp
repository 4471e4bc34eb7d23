// Subnormal numbers: a CPU takes a hundred times as long for one, and gradients of a saturated model are full
// of them.
#pragma once

#include <cstdint>

namespace switchyard::kernels {

/// For the length of a scope all threads of this rank take subnormal operands and results as zeros (x86: DAZ
/// and FTZ; Arm: FZ). Where the processor has no such switch, and on a device: nothing. Scopes may nest.
class FlushSubnormals {
  public:
    FlushSubnormals();
    ~FlushSubnormals();
    FlushSubnormals(const FlushSubnormals&) = delete;
    FlushSubnormals& operator=(const FlushSubnormals&) = delete;

  private:
    std::uint64_t before_;  // control register of the calling thread
};

/// Whether the scope does anything here.
bool can_flush_subnormals();

}  // namespace switchyard::kernels
