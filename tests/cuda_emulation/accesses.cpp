// What the emulation reads and writes in a kernel's name, compiled with the sanitizers of kernels.
#include "fibers.hpp"

namespace emulation::access {

std::uint16_t word(const std::uint16_t* p) {
    return *p;
}

void copy(unsigned char* to, const unsigned char* from) {
    for (int i = 0; i < 16; ++i) to[i] = from[i];
}

void fill(unsigned char* to, unsigned char value) {
    for (int i = 0; i < 16; ++i) to[i] = value;
}

}  // namespace emulation::access
