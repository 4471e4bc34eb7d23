// Device memory of the emulation: full of NaNs when allocated. Without sanitizers the host cannot touch it
// outside kernels and copies, and each block ends at a page that nobody can touch; with AddressSanitizer or
// ThreadSanitizer a block is an allocation of exactly its length.
#pragma once

#include <cstddef>

namespace emulation {

void* allocate_device(std::size_t bytes);
/// False if it is not the start of a block.
bool release_device(void*);
bool is_device_memory(const void* start, std::size_t bytes);
std::size_t device_bytes_in_use();

/// While one lives, device memory can be touched. They may nest.
class OpenMemory {
  public:
    OpenMemory();
    ~OpenMemory();
    OpenMemory(const OpenMemory&) = delete;
    OpenMemory& operator=(const OpenMemory&) = delete;
};

}  // namespace emulation
