// Memory of a back end: what tensors lie in. Declared here because the arena needs it, defined by the back
// end. The host touches it through kernels, collectives, upload and download only.
#pragma once

#include <cstddef>
#include <string>

namespace switchyard::backend {

/// Of every tensor in an arena, in bytes.
std::size_t alignment();

/// At least `bytes` bytes with alignment(), of any content, or null where they are refused.
std::byte* allocate(std::size_t bytes);
void release(std::byte*) noexcept;
/// Memory of allocate() <- 0. On a CPU the first to touch a page decides which processor it is near: work is
/// shared among the threads as kernels share theirs, so this is called for one tensor at a time.
void clear(std::byte*, std::size_t bytes);

/// Where this rank's memory comes from.
struct Pool {
    std::string name;       // for messages: "node17"
    double free_bytes = 0;  // what processes here can still allocate; infinite where the system does not say
    std::string key;        // ranks with the same key share the pool
};
Pool pool();

/// Bytes of the pool that this process has in use, now and at most since reset_peak_used_bytes(); 0 where
/// unknown.
double used_bytes();
double peak_used_bytes();
void reset_peak_used_bytes();

/// Whether all of [start, start + bytes) lies in one block that allocate() gave and release() has not taken.
bool owns(const void* start, std::size_t bytes);

}  // namespace switchyard::backend
