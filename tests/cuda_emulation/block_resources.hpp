// What the threads of a block get: stacks, shared memory, and places at which ThreadSanitizer keeps what
// comes before what. Without sanitizers, pages that nobody can touch end them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fibers.hpp"

namespace emulation {

inline constexpr std::size_t most_shared_bytes = 227 * 1024;

/// Orders that differ between blocks have different places: a thread of one block that met others knows
/// nothing of the threads of the blocks before.
struct OrderPlaces {
    std::uint64_t barrier[2];  // in turn: a thread may come to a barrier before all have left the one before
    std::uint64_t warps[most_threads / warp_lanes][most_meetings][4];
};

/// Before each block.
void provide_block(unsigned threads, std::size_t shared_bytes);
/// After the last block of a launch.
void end_of_blocks();

/// The stack of a thread: its first byte and length.
unsigned char* stack_start(unsigned thread);
std::size_t stack_length(unsigned thread);
unsigned char* shared_start();
/// Null without ThreadSanitizer.
OrderPlaces* order_places();

/// For a bad address: which stack or shared memory was overrun; null if none was.
const char* overrun_at(const void* address);

}  // namespace emulation
