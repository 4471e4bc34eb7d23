// RANKS: 1 2 3 4
// Communicators, checked calls and the agreement of ranks on errors.
// BACK ENDS: cpu. Messages between hosts alone.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "comm/collectives.hpp"
#include "comm/comm.hpp"
#include "comm/failure.hpp"
#include "comm/library.hpp"
#include "core/error.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

Comm world() {
    return Comm::duplicate(MPI_COMM_WORLD);
}

TEST(Comm, DuplicateKeepsRanksAndOwnsItsHandle) {
    int rank = -1, size = -1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    const Comm comm = world();
    EXPECT_EQ(comm.rank(), rank);
    EXPECT_EQ(comm.size(), size);
    int relation = -1;
    MPI_Comm_compare(comm.handle(), MPI_COMM_WORLD, &relation);
    EXPECT_EQ(relation, MPI_CONGRUENT);
}

TEST(Comm, SplitByParityReversed) {
    const Comm comm = world();
    const Comm half = comm.split(comm.rank() % 2, -comm.rank());
    const int expected_size = comm.rank() % 2 ? comm.size() / 2 : (comm.size() + 1) / 2;
    EXPECT_EQ(half.size(), expected_size);
    EXPECT_EQ(half.rank(), expected_size - 1 - comm.rank() / 2);
    EXPECT_EQ(all_reduce_sum(half, 1.0), expected_size);
}

/// Counts in *state how often a communicator that carries the attribute is freed.
int count_free(MPI_Comm, int, void* state, void*) {
    ++*static_cast<int*>(state);
    return MPI_SUCCESS;
}

TEST(Comm, LastOwnerFreesUnlessAnExceptionUnwinds) {
    int key = MPI_KEYVAL_INVALID, freed = 0;
    SWITCHYARD_MPI(MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, count_free, &key, nullptr));
    {
        Comm copy;
        {
            const Comm comm = world();
            SWITCHYARD_MPI(MPI_Comm_set_attr(comm.handle(), key, &freed));
            copy = comm;
            EXPECT_EQ(copy.handle(), comm.handle());
        }
        EXPECT_EQ(freed, 0);
        EXPECT_EQ(all_reduce_sum(copy, 1.0), copy.size());
    }
    EXPECT_EQ(freed, 1);
    try {
        const Comm comm = world();
        SWITCHYARD_MPI(MPI_Comm_set_attr(comm.handle(), key, &freed));
        throw 1;  // freeing is collective: a lone rank would wait in it
    } catch (int) {
    }
    EXPECT_EQ(freed, 1);
    SWITCHYARD_MPI(MPI_Comm_free_keyval(&key));
}

TEST(Comm, FailedCallThrowsWithItsName) {
    const Comm comm = world();
    int number = 0;
    try {
        SWITCHYARD_MPI(MPI_Bcast(&number, 1, MPI_INT, comm.size() + 7, comm.handle()));
        FAIL() << "a broadcast from a rank that does not exist succeeded";
    } catch (const InternalError& error) {
        const std::string text = error.what();
        EXPECT_NE(text.find("MPI_Bcast"), std::string::npos) << text;
        EXPECT_NE(text.find("test_comm.cpp"), std::string::npos) << text;
    }
    EXPECT_THROW(SWITCHYARD_MPI(MPI_Bcast(&number, 1, MPI_INT, comm.size() + 7, MPI_COMM_WORLD)),
                 InternalError);
}

TEST(Agree, SilentWhenAllAreWell) {
    EXPECT_NO_THROW(agree(world(), true, "unused"));
    int runs = 0;
    EXPECT_NO_THROW(agree_on(world(), [&] { ++runs; }));
    EXPECT_EQ(runs, 1);
}

TEST(Agree, EveryRankThrowsTheLowestFailingRanksMessage) {
    const Comm comm = world();
    for (int first = 0; first < comm.size(); ++first) {
        try {
            agree(comm, comm.rank() < first, "disk full at " + std::to_string(comm.rank()));
            FAIL() << "rank " << comm.rank() << " went on";
        } catch (const UserError& error) {
            const std::string text = error.what();
            EXPECT_EQ(text.find("disk full at " + std::to_string(first)), 0u) << text;
            const bool named = text.find("rank " + std::to_string(first)) != std::string::npos;
            EXPECT_EQ(named, first > 0) << text;  // from 0 on all failed
        }
    }
    EXPECT_EQ(all_reduce_sum(comm, 1.0), comm.size());  // still in step
}

TEST(Agree, NoRankIsNamedWhereAllFailed) {
    const Comm comm = world();
    const std::string mine = "disk full at " + std::to_string(comm.rank());
    EXPECT_EQ(test::message_of<UserError>([&] { agree(comm, false, mine); }), "disk full at 0");
}

TEST(Agree, AnInternalErrorStaysOne) {
    const Comm comm = world();
    for (int thrower = 0; thrower < comm.size(); ++thrower) {
        const auto work = [&] { internal_check(comm.rank() != thrower, "an odd number"); };
        const std::string text = test::message_of<InternalError>([&] { agree_on(comm, work); });
        EXPECT_EQ(text.find("internal error: an odd number"), 0u) << text;
        EXPECT_EQ(text.find("on rank " + std::to_string(thrower)) != std::string::npos, comm.size() > 1)
            << text;
    }
    // Different errors: the lowest rank that failed decides.
    const auto differing = [&] {
        internal_check(comm.rank() % 2 == 0, "rank {}", comm.rank());
        fail("rank {}", comm.rank());
    };
    EXPECT_EQ(test::message_of<UserError>([&] { agree_on(comm, differing); }), "rank 0");
}

TEST(TextOfRoot, ComesFromRankZeroAlone) {
    const Comm comm = world();
    for (const std::string& text : {std::string(), std::string("a\0b\xFF", 4), std::string(100000, 'x')}) {
        int calls = 0;
        EXPECT_EQ(text_of_root(comm, [&] { return ++calls, text; }), text);
        EXPECT_EQ(calls, comm.rank() == 0 ? 1 : 0);
    }
}

TEST(TextOfRoot, ItsErrorIsThatOfAllRanks) {
    const Comm comm = world();
    const auto failing = [&](auto error) { return [error]() -> std::string { throw error; }; };
    const auto user = failing(UserError("no such text"));
    const auto other = failing(std::runtime_error("strange"));
    const auto internal = failing(InternalError("internal error: broken"));
    if (comm.size() == 1) {
        EXPECT_THROW(text_of_root(comm, other), std::runtime_error);
        return;
    }
    EXPECT_EQ(test::message_of<AgreedError>([&] { text_of_root(comm, user); }), "no such text");
    EXPECT_EQ(test::message_of<AgreedError>([&] { text_of_root(comm, other); }), "strange");
    EXPECT_EQ(test::message_of<AgreedInternalError>([&] { text_of_root(comm, internal); }),
              "internal error: broken");
    EXPECT_EQ(text_of_root(comm, [] { return std::string("well again"); }), "well again");
}

TEST(Agree, OneThrowingRankStopsAll) {
    const Comm comm = world();
    for (int thrower = 0; thrower < comm.size(); ++thrower) {
        const auto work = [&] {
            if (comm.rank() != thrower) return;
            if (thrower % 3 == 0) throw UserError("file missing");
            if (thrower % 3 == 1) throw std::bad_alloc();
            throw 42;
        };
        const char* expected[] = {"file missing", "out of memory", "an unknown exception"};
        try {
            agree_on(comm, work);
            FAIL() << "rank " << comm.rank() << " went on";
        } catch (const UserError& error) {
            EXPECT_NE(std::string(error.what()).find(expected[thrower % 3]), std::string::npos)
                << error.what();
        }
    }
    EXPECT_EQ(all_reduce_sum(comm, 1.0), comm.size());
}

TEST(MpiSession, TheLibraryIsNamedInOneLine) {
    const std::string name = mpi_library();
    EXPECT_NE(name.find("MPI"), std::string::npos) << name;  // of "Open MPI", "MPICH", "Intel(R) MPI Library"
    EXPECT_EQ(name.find_first_of("\n\t"), std::string::npos) << name;
    EXPECT_EQ(name.find("  "), std::string::npos) << name;
}

TEST(MpiSession, RunsFunneled) {
    int provided = -1;
    MPI_Query_thread(&provided);
    EXPECT_GE(provided, MPI_THREAD_FUNNELED);
}

/// MPI's handler of fatal signals must not wait for the lock that the failing thread holds.
TEST(MpiSession, AProcessWhoseHeapIsDamagedEnds) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(60);
        ::close(STDERR_FILENO);
        for (std::size_t bytes = 8; bytes <= 1032; bytes += 8)  // what this thread keeps needs no lock
            for (int i = 0; i < 8; ++i) [[maybe_unused]] void* volatile kept = std::malloc(bytes);
        void* volatile block = std::malloc(1 << 16);
        void* volatile behind = std::malloc(1 << 16);
        std::free(block);
        std::free(block);
        std::free(behind);
        ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_FALSE(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) << "it did not end by itself";
    EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "its heap was not damaged";
}

}  // namespace
}  // namespace switchyard
