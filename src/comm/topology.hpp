// Topology: the process grid world = dp x tp, tp fastest: world rank = dp_rank * tp_size + tp_rank.
#pragma once

#include "comm/comm.hpp"

namespace switchyard {

struct Topology {
    Comm world, tp, dp, node;

    /// Collective over `world`. Throws UserError if its size is not a multiple of tp.
    static Topology create(Comm world, int tp);
    /// Throws UserError if `ranks` is not a multiple of tp.
    static void check_grid(int ranks, int tp);
    /// The topology of rank `rank` of `ranks`, without processes. Nodes are not known, so `node` has this
    /// rank alone.
    static Topology imaginary(int ranks, int tp, int rank);

    int tp_rank() const { return tp.rank(); }
    int tp_size() const { return tp.size(); }
    int dp_rank() const { return dp.rank(); }
    int dp_size() const { return dp.size(); }
};

}  // namespace switchyard
