// RANKS: 1 2 3
// What ends a run early, with a clock that the test sets: rank 0 looks for files once a second, and all ranks
// get the same answer.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "comm/collectives.hpp"
#include "run/stop_requests.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

struct StopRequestsTest : ::testing::Test {
    /// Makes a file on rank 0; no rank goes on before it exists.
    void touch(const char* name) const {
        if (comm.rank() == 0) folder.write(name, "");
        barrier(comm);
    }
    bool has(const char* name) const {
        return broadcast(comm, static_cast<std::int64_t>(comm.rank() == 0 && folder.has(name))) != 0;
    }
    StopRequests requests(double wall_limit_s = 0) {
        return {comm, folder.path(), 100, wall_limit_s, [this] { return now; }};
    }

    Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    test::TemporaryDirectory folder;
    double now = 100;
};

TEST_F(StopRequestsTest, FilesAreLookedForAtTheFirstStepAndThenOnceASecond) {
    touch("save");
    StopRequests stops = requests();
    EXPECT_TRUE(stops.agree(0).save);
    EXPECT_FALSE(has("save"));
    touch("save");
    touch("stop");
    for (int step = 0; step < 9; ++step) {
        now += 0.1;
        const StopDecision early = stops.agree(0);
        EXPECT_EQ(early.stop, Stop::none);
        EXPECT_FALSE(early.save);
        EXPECT_TRUE(has("stop"));
    }
    now = 101;
    EXPECT_EQ(stops.agree(0).stop, Stop::asked);
    EXPECT_FALSE(has("stop"));
    EXPECT_FALSE(has("save"));
}

TEST_F(StopRequestsTest, RankZerosClockAndNeedsDecide) {
    StopRequests stops = requests(60);
    now = 150 + comm.rank() * 50;  // other ranks are past the limit by their own clocks
    EXPECT_EQ(stops.remaining_s(), 10 - comm.rank() * 50);
    EXPECT_EQ(stops.agree(comm.rank() == 0 ? 9.5 : 1000).stop, Stop::none);
    EXPECT_EQ(stops.agree(comm.rank() == 0 ? 10.5 : 0).stop, Stop::wall_limit);
}

TEST_F(StopRequestsTest, SignalsOfAnyRankCountAtOnceAndTheHighestWins) {
    StopRequests stops = requests();
    note_terminations();
    EXPECT_EQ(stops.agree(0).stop, Stop::none);
    if (comm.rank() == comm.size() - 1) std::raise(SIGTERM);
    EXPECT_EQ(stops.agree(0).stop, Stop::terminated);
    if (comm.rank() == 0) std::raise(SIGUSR1);
    EXPECT_EQ(stops.agree(0).stop, Stop::requeue_signal);
    EXPECT_TRUE(wants_requeue(Stop::requeue_signal));
}

TEST_F(StopRequestsTest, test_finding_23_before_the_run_has_begun_sigterm_ends_the_process) {
    for (int signal : {SIGTERM, SIGINT}) std::signal(signal, SIG_DFL);  // earlier tests have set handlers
    const StopRequests stops = requests();
    for (int signal : {SIGTERM, SIGINT}) {
        struct sigaction action {};
        sigaction(signal, nullptr, &action);
        EXPECT_EQ(action.sa_handler, SIG_DFL);
    }
}

}  // namespace
}  // namespace switchyard
