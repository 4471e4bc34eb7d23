// Between the files of the emulation: the scheduler's threads and how they wait. Nothing that fibers run may
// call what sanitizers intercept (memcpy, new, delete), because ThreadSanitizer takes each CUDA thread for a
// thread of its own that knows of the others only through meeting points.
#pragma once

#include "emulation.hpp"

namespace emulation {

inline constexpr unsigned warp_lanes = 32, most_threads = 1024;

/// Prints a sentence with the place in the kernel and ends the process with status 3.
[[noreturn]] void error(const Where&, const char* format, ...);

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
/// Before each block.
void reset_warps();

/// Orders what ThreadSanitizer sees: everything before release() of one thread comes before acquire() of
/// another.
void release(void* place);
void acquire(void* place);

/// Copies in the background of the calling thread that were not waited for are an error at its exit.
void check_copies(unsigned thread);

/// The accesses of kernels that the emulation makes for them; compiled like kernels (accesses.cpp).
namespace access {
std::uint16_t word(const std::uint16_t*);
/// Sixteen bytes, or zeros if `from` is null.
void copy(unsigned char* to, const unsigned char* from);
}  // namespace access

/// Draws a number below `bound`.
unsigned draw(unsigned bound);

}  // namespace emulation
