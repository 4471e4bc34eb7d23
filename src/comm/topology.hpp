// Topology: the process grid world = dp x tp, tp fastest: world rank = dp_rank * tp_size + tp_rank.
#pragma once

#include "comm/comm.hpp"

namespace switchyard {

struct Topology {
    Comm world, tp, dp, node;

    /// Collective over `world`. Throws UserError when its size is not a multiple of tp.
    static Topology create(Comm world, int tp);
    /// Throws UserError when `ranks` is not a multiple of tp.
    static void check_grid(int ranks, int tp);
    /// As rank `rank` of `ranks` would see it, without processes. Nothing is known of nodes: `node` is this
    /// rank alone.
    static Topology imaginary(int ranks, int tp, int rank);

    int tp_rank() const { return tp.rank(); }
    int tp_size() const { return tp.size(); }
    int dp_rank() const { return dp.rank(); }
    int dp_size() const { return dp.size(); }
};

}  // namespace switchyard
