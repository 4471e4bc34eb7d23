// GoogleTest under mpirun: every rank runs every test, rank 0 reports, all ranks fail if one does.
#include <gtest/gtest.h>

#include "comm/comm.hpp"

int main(int argc, char** argv) {
    switchyard::MpiSession session(argc, argv);
    ::testing::InitGoogleTest(&argc, argv);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    // Other ranks keep the default printer only for failures: they print nothing when all is well.
    if (rank != 0) ::testing::GTEST_FLAG(brief) = true;
    (void)listeners;
    int failed = RUN_ALL_TESTS();
    int any = 0;
    MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return any;
}
