// Device memory of the emulation: full of NaNs when allocated. Without sanitizers the host cannot touch it
// outside kernels and copies, and each block ends at a page that nobody can touch; with AddressSanitizer or
// ThreadSanitizer a block is an allocation of exactly its length.
#pragma once

#include <cstddef>

namespace emulation {

void* allocate_device(std::size_t bytes);
/// False if it is not the start of a block. `keep_address`: no other block gets its place, so that work which
/// still touches it ends with a sentence.
bool release_device(void*, bool keep_address = false);
bool is_device_memory(const void* start, std::size_t bytes);
std::size_t device_bytes_in_use();
/// Of the system, at whose granularity memory is closed.
std::size_t page_bytes();
/// memset() of device memory, while it is open. Whole pages of zeros cost nothing until they are touched.
void set_device(void* start, int value, std::size_t bytes);

/// The block of device memory, or the page after one, in which a bad address lies; without a block if none.
struct BadAddress {
    const void* block = nullptr;
    std::size_t bytes = 0;
    std::ptrdiff_t offset = 0;
    bool outside = false, released = false;
};
BadAddress what_is_at(const void* address);

/// While one lives, device memory can be touched. They may nest.
class OpenMemory {
  public:
    OpenMemory();
    ~OpenMemory();
    OpenMemory(const OpenMemory&) = delete;
    OpenMemory& operator=(const OpenMemory&) = delete;
};

}  // namespace emulation
