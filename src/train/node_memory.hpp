// Whether the memory that the ranks of a node ask for is there. Linux grants more than it has and kills a
// process, without a word, when the memory is used: so it is compared before.
#pragma once

#include <string>

#include "comm/topology.hpp"
#include "core/arena.hpp"

namespace switchyard {

/// Bytes that processes here can still use: the machine's available memory and free swap, or what a control
/// group (batch job, container) leaves, whichever is less. Infinite when the system does not say. `root`:
/// where /proc and /sys are.
double available_bytes(const std::string& root = "");

/// The arena that was measured. Collective over the world. Throws UserError on all ranks when those of one
/// node ask for more than is available there.
Arena allocate_arena(const Topology&, const Arena& measured);

}  // namespace switchyard
