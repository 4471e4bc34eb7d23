// Whether the memory that the ranks of a node ask for is there. Linux grants more than it has and kills a
// process, without a word, when the memory is used: so it is compared before.
#pragma once

#include "comm/topology.hpp"
#include "core/arena.hpp"

namespace switchyard {

/// The arena that was measured. Collective over the world. Throws UserError on all ranks when those that
/// share a pool of memory ask for more than is free there.
Arena allocate_arena(const Topology&, const Arena& measured);

}  // namespace switchyard
