// Checks that a node has the memory that its ranks request. This is done before allocation, because Linux
// grants more memory than it has and kills a process without a message when the memory is used.
#pragma once

#include "comm/topology.hpp"
#include "core/arena.hpp"

namespace switchyard {

/// Allocates what `measured` counted. Collective over the world. Throws UserError on all ranks if the ranks
/// that share a pool request more than is free there.
Arena allocate_arena(const Topology&, const Arena& measured);

}  // namespace switchyard
