// Every factorisation of the ranks on which a test was started, and a single process.
#pragma once

#include <gtest/gtest.h>
#include <mpi.h>

#include "comm/topology.hpp"
#include "config/config.hpp"

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

/// The micro-batch that leaves a rank two passes of a step, or three: enough to accumulate.
inline std::int64_t micro_batch_of_few_passes(const Config& config, int dp_size) {
    const std::int64_t per_rank = config.data.global_batch / dp_size;
    return per_rank % 2 == 0 ? per_rank / 2 : 1;
}

template <class Body>
void for_each_layout_in_few_passes(const Config& config, const Body& body) {
    for_each_layout(config, [&](Config here, const Topology& topology) {
        here.data.micro_batch = micro_batch_of_few_passes(here, topology.dp_size());
        body(here, topology);
    });
}

}  // namespace switchyard::testing
