// The memory of a back end, in which all tensors lie. Declared here because the arena needs it; each back end
// defines it. The host reaches this memory through kernels, collectives, upload and download only.
#pragma once

#include <cstddef>
#include <string>

namespace switchyard::backend {

/// Alignment in bytes of every tensor in an arena.
std::size_t alignment();

/// Allocates at least `bytes` bytes, aligned to alignment(), with undefined content. Null when the system
/// refuses.
std::byte* allocate(std::size_t bytes);
void release(std::byte*) noexcept;
/// Sets memory of allocate() to zero. On a CPU the thread that touches a page first decides which processor
/// it is near. The work is shared among threads as kernels share theirs, so call this for one tensor at a
/// time.
void clear(std::byte*, std::size_t bytes);

/// The pool of memory that this rank allocates from.
struct Pool {
    std::string name;       // for messages: "node17"
    double free_bytes = 0;  // what processes here can still allocate; infinite where the system does not tell
    std::string key;        // ranks with the same key share the pool
};
Pool pool();

/// Bytes of the pool in use by this process: now, and at most since reset_peak_used_bytes(). 0 where unknown.
double used_bytes();
double peak_used_bytes();
void reset_peak_used_bytes();

/// Host memory that the back end pins beside the arena, at most, on one of `ranks` ranks; the same on a
/// machine without its device. And what it has pinned so far.
std::size_t pinned_bytes(int ranks);
std::size_t used_pinned_bytes();

/// True if all of [start, start + bytes) lies in one block of allocate() that was not released.
bool owns(const void* start, std::size_t bytes);

}  // namespace switchyard::backend
