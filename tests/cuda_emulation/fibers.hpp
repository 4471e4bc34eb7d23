// Between the files of the emulation: the scheduler's threads and how they wait. Nothing that fibers run may
// call what sanitizers intercept (memcpy, new, delete), because ThreadSanitizer takes each CUDA thread for a
// thread of its own that knows of the others only through meeting points.
#pragma once

#include "emulation.hpp"

namespace emulation {

inline constexpr unsigned warp_lanes = 32, most_threads = 1024;
/// Of a warp at a time: of disjoint masks, or one that is being left while the next one gathers.
inline constexpr unsigned most_meetings = 8;

/// Prints a sentence with the place in the kernel and ends the process with status 3.
[[noreturn]] void error(const Where&, const char* format, ...);

inline bool same_place(const Where& a, const Where& b) {
    return a.line() == b.line() && a.column() == b.column();
}

/// An error if no device can run the launch.
void check_launch(std::int64_t blocks, int threads, std::size_t shared_bytes);

/// The calling CUDA thread waits until another one makes it ready; `waits_for` and `where` are for messages.
void wait_for_others(const char* waits_for, const Where& where);
/// Makes the thread of the caller's warp that has this lane ready.
void make_ready(unsigned lane);
/// The lanes of the caller's warp that have not exited.
unsigned live_lanes();
/// The number of the caller's warp in its block.
unsigned warp_number();

/// A warp's thread exits: an error if others wait for it.
void lane_exits(unsigned warp, unsigned lane);
/// Before each block, with its number of threads.
void reset_warps(unsigned threads);

/// Copies in the background of the calling thread that were not waited for are an error at its exit.
void check_copies(unsigned thread);

/// True if [start, start + bytes) lies in the shared memory of the block.
bool in_shared_memory(const void* start, std::size_t bytes);

/// The accesses of kernels that the emulation makes for them; compiled like kernels (accesses.cpp).
namespace access {
std::uint16_t word(const std::uint16_t*);
/// Sixteen bytes.
void copy(unsigned char* to, const unsigned char* from);
void fill(unsigned char* to, unsigned char value);
}  // namespace access

/// Draws a number below `bound`.
unsigned draw(unsigned bound);

}  // namespace emulation
