// GoogleTest under mpirun: every rank runs every test, rank 0 reports, the others print failures only, and
// all fail if one does.
#include <gtest/gtest.h>

#include "comm/comm.hpp"
#include "support/chosen_source.hpp"

int main(int argc, char** argv) {
    switchyard::MpiSession session(argc, argv);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank != 0) GTEST_FLAG_SET(brief, true);  // before InitGoogleTest, which chooses the printer
    ::testing::InitGoogleTest(&argc, argv);
    int failed = switchyard::testing::choose_source(argc, argv) ? RUN_ALL_TESTS() : 2;
    int any = 0;
    MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return any;
}
