// RANKS: 1 2 3 4
// The process grid of real ranks, for every factorisation of their number.
// BACK ENDS: cpu. Communicators alone.
#include <gtest/gtest.h>

#include "comm/collectives.hpp"
#include "comm/topology.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

TEST(Topology, EveryFactorisationHasItsGroups) {
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    const int size = world.size();
    for (int tp = 1; tp <= size; ++tp) {
        if (size % tp) continue;
        const Topology t = Topology::create(world, tp);
        EXPECT_EQ(t.world.size(), size);
        EXPECT_EQ(t.tp_size(), tp);
        EXPECT_EQ(t.dp_size(), size / tp);
        EXPECT_EQ(t.dp_rank() * tp + t.tp_rank(), world.rank());
        // Members are identified by the sum of their squares. tp neighbours are consecutive, dp neighbours
        // are tp apart.
        const double mine = (1 + world.rank()) * (1 + world.rank());
        double tp_sum = 0, dp_sum = 0;
        for (int p = 0; p < tp; ++p) {
            const int member = t.dp_rank() * tp + p;
            tp_sum += (1 + member) * (1 + member);
        }
        for (int d = 0; d < size / tp; ++d) {
            const int member = d * tp + t.tp_rank();
            dp_sum += (1 + member) * (1 + member);
        }
        EXPECT_EQ(all_reduce_sum(t.tp, mine), tp_sum);
        EXPECT_EQ(all_reduce_sum(t.dp, mine), dp_sum);
    }
}

TEST(Topology, AgreesWithTheImaginaryOne) {
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    for (int tp : {1, world.size()}) {
        const Topology real = Topology::create(world, tp);
        const Topology imaginary = Topology::imaginary(world.size(), tp, world.rank());
        EXPECT_EQ(real.tp_rank(), imaginary.tp_rank());
        EXPECT_EQ(real.dp_rank(), imaginary.dp_rank());
        EXPECT_EQ(real.tp_size(), imaginary.tp_size());
        EXPECT_EQ(real.dp_size(), imaginary.dp_size());
    }
}

TEST(Topology, NodeHoldsTheRanksThatShareMemory) {
    const Topology t = Topology::create(Comm::duplicate(MPI_COMM_WORLD), 1);
    // Ranks with one processor name share a node. The sum of 1/size over all ranks counts the nodes.
    char name[MPI_MAX_PROCESSOR_NAME] = "";
    int length = 0;
    MPI_Get_processor_name(name, &length);
    int same = 0;
    for (int p = 0; p < t.world.size(); ++p) same += broadcast(t.world, std::string(name, length), p) == name;
    EXPECT_EQ(t.node.size(), same);
    EXPECT_LT(t.node.rank(), t.node.size());
}

TEST(Topology, RanksThatDoNotFitThrowEverywhere) {
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    EXPECT_THROW(Topology::create(world, world.size() + 1), UserError);
    EXPECT_THROW(Topology::create(world, 0), UserError);
    EXPECT_EQ(all_reduce_sum(world, 1.0), world.size());
}

}  // namespace
}  // namespace switchyard
