// The process grid. Colors and keys of the splits are the coordinates themselves, so ranks keep their order.
#include "comm/topology.hpp"

#include "core/error.hpp"

namespace switchyard {

void Topology::check_grid(int ranks, int tp) {
    require(tp >= 1, "parallel.tp = {} (a tensor-parallel group has at least one rank); use 1 or more", tp);
    require(ranks % tp == 0,
            "{} ranks are not a multiple of parallel.tp = {} (the ranks form a grid dp x tp); start {} or {} "
            "ranks, or change parallel.tp",
            ranks, tp, ranks < tp ? tp : ranks / tp * tp, (ranks / tp + (ranks < tp ? 2 : 1)) * tp);
}

Topology Topology::create(Comm world, int tp) {
    check_grid(world.size(), tp);
    const int dp_rank = world.rank() / tp, tp_rank = world.rank() % tp;
    Topology topology;
    topology.tp = world.split(dp_rank, tp_rank);
    topology.dp = world.split(tp_rank, dp_rank);
    topology.node = world.split_by_node();
    topology.world = std::move(world);
    return topology;
}

Topology Topology::imaginary(int ranks, int tp, int rank) {
    check_grid(ranks, tp);
    Topology topology;
    topology.world = Comm::imaginary(rank, ranks);
    topology.tp = Comm::imaginary(rank % tp, tp);
    topology.dp = Comm::imaginary(rank / tp, ranks / tp);
    return topology;
}

}  // namespace switchyard
