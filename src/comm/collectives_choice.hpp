// How collectives on back-end memory travel. Each back end defines both functions.
#pragma once

#include <string>

#include "comm/comm.hpp"

namespace switchyard {

/// automatic: nccl where every rank has a GPU of its own and NCCL starts, else staged. mpi: from GPU memory,
/// by a library that says that it was built for that; whether its transports can, it does not say. staged:
/// copied to host memory and sent from there by MPI.
enum class CollectivesWay { automatic, nccl, mpi, staged };
/// Of sums over ranks. library: as NCCL adds, in an order of its own, and in bf16 where the values are bf16.
enum class SumOrder { rank, library };

struct CollectivesChoice {
    CollectivesWay way = CollectivesWay::automatic;
    SumOrder order = SumOrder::rank;
};

/// From the values of parallel.collectives and parallel.sum_order.
CollectivesChoice collectives_choice(const std::string& way, const std::string& order);

/// For communicators whose first collective comes later; the same on all ranks. Throws UserError if this back
/// end has no such way.
void choose_collectives(const CollectivesChoice&);

/// How tensors of this communicator travel, in words: "NCCL 2.28.9"; and why not by NCCL, where that does not
/// start. Finds out first (collective), and throws
/// AgreedError if what was chosen does not work here.
std::string collectives_text(const Comm&);

}  // namespace switchyard
