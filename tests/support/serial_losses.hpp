// What layouts are compared with.
#pragma once

#include "support/layouts.hpp"
#include "support/tiny_run.hpp"

namespace switchyard::testing {

/// The losses of a run of one process, which the first rank makes and the others wait for.
inline std::vector<double> serial_losses(const Config& config, int steps) {
    std::vector<double> losses(static_cast<std::size_t>(steps));
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) {
        const Topology one = serial();
        losses = TinyRun(config, one).losses(steps);
    }
    MPI_Bcast(losses.data(), steps, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    return losses;
}

}  // namespace switchyard::testing
