// Every factorisation of the ranks on which a test was started, and a single process.
#pragma once

#include <gtest/gtest.h>
#include <mpi.h>

#include "comm/topology.hpp"
#include "support/tiny_run.hpp"

namespace switchyard::testing {

inline Topology serial() {
    return Topology::imaginary(1, 1, 0);
}

/// body(configuration, topology) for each (tp, dp), collective; failures name the layout.
template <class Body>
void for_each_layout(const Config& config, const Body& body) {
    int ranks = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (int tp = 1; tp <= ranks; ++tp) {
        if (ranks % tp != 0) continue;
        const Topology topology = Topology::create(Comm::duplicate(MPI_COMM_WORLD), tp);
        Config here = config;
        here.parallel.tp = tp;
        SCOPED_TRACE(::testing::Message() << "tp " << tp << ", dp " << topology.dp_size());
        body(here, topology);
    }
}

/// The same in few passes of a step.
template <class Body>
void for_each_layout_in_few_passes(const Config& config, const Body& body) {
    for_each_layout(config, [&](Config here, const Topology& topology) {
        here.data.micro_batch = micro_batch_of_few_passes(here.data.global_batch, topology.dp_size());
        body(here, topology);
    });
}

}  // namespace switchyard::testing
