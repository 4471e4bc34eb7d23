// RANKS: 2 4
// The ways that tensors travel between ranks: which of them work here, and that all give the same bits.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "comm/collectives.hpp"
#include "comm/collectives_choice.hpp"
#include "comm/messages.hpp"
#include "comm/ordered_sum.hpp"
#include "core/error.hpp"
#include "support/tensors.hpp"

namespace switchyard {
namespace {

using test::HostTensor;

struct Ways : ::testing::Test {
    ~Ways() override { choose_collectives({}); }

    /// A communicator whose tensors travel so; a UserError where they cannot.
    static Comm by(const std::string& way, const std::string& order = "rank") {
        choose_collectives(collectives_choice(way, order));
        Comm comm = Comm::duplicate(MPI_COMM_WORLD);
        collectives_text(comm);
        return comm;
    }
    /// What goes wrong with it; "" if nothing does.
    static std::string problem(const std::string& way, const std::string& order = "rank") {
        try {
            by(way, order);
            return "";
        } catch (const UserError& error) {
            return error.what();
        }
    }
    static std::vector<std::string> working() {
        std::vector<std::string> ways;
        for (const char* way : {"nccl", "mpi", "staged"})
            if (problem(way).empty()) ways.push_back(way);
        return ways;
    }

    static HostTensor values_of(DType dtype, std::int64_t size, int rank) {
        return HostTensor::normal(dtype, {size}, "values of rank " + std::to_string(rank),
                                  rank % 2 ? 1000 : 1);
    }
    static HostTensor sum(const Comm& comm, DType dtype, std::int64_t size) {
        HostTensor values = values_of(dtype, size, comm.rank());
        const auto scratch_bytes =
            static_cast<std::int64_t>(values.num_bytes()) + 64 * static_cast<std::int64_t>(comm.size());
        const HostTensor scratch(DType::u8, {scratch_bytes});
        Traffic traffic;
        start_all_reduce(comm, values, scratch, traffic, TrafficGroup::gradients).wait();
        return values;
    }
    /// As the CPU adds.
    static HostTensor expected_sum(int ranks, DType dtype, std::int64_t size) {
        HostTensor parts(dtype, {ranks * size}), result(dtype, {size});
        for (int p = 0; p < ranks; ++p) {
            const HostTensor part = values_of(dtype, size, p);
            std::memcpy(parts.bytes() + static_cast<std::size_t>(p) * part.num_bytes(), part.bytes(),
                        part.num_bytes());
        }
        ordered_sum(dtype, result.bytes(), parts.bytes(), ranks, size, size);
        return result;
    }
    static std::int64_t num_different(const HostTensor& a, const HostTensor& b) {
        std::int64_t different = 0;
        for (std::int64_t i = 0; i < a.size(); ++i) different += a.bits(i) != b.bits(i);
        return different;
    }
};

TEST_F(Ways, AreThoseOfThisBackEnd) {
    const char* text = std::getenv("SWITCHYARD_TEST_WAYS");
    if (!text) GTEST_SKIP() << "SWITCHYARD_TEST_WAYS does not say which ways this back end has here";
    EXPECT_EQ(fmt::format("{}", fmt::join(working(), ",")), text);
    EXPECT_EQ(problem("auto"), "");
}

TEST_F(Ways, GiveTheBitsOfSumsInRankOrder) {
    std::vector<std::string> ways = working();
    ASSERT_FALSE(ways.empty());
    ways.push_back("auto");
    for (const std::string& way : ways) {
        const Comm comm = by(way);
        for (DType dtype : {DType::f32, DType::bf16, DType::f64})
            for (std::int64_t size : {1, 33, 4096, 10007}) {
                const HostTensor got = sum(comm, dtype, size);
                EXPECT_EQ(num_different(got, expected_sum(comm.size(), dtype, size)), 0)
                    << way << ", " << name_of(dtype) << ", " << size << " elements";
            }
    }
}

TEST_F(Ways, AnotherOrderOfSumsIsNcclsAlone) {
    const std::string refusal = problem("auto", "library");
    if (!refusal.empty()) {
        EXPECT_NE(refusal.find("parallel.sum_order = library asks NCCL for its sums"), refusal.npos)
            << refusal;
        EXPECT_NE(refusal.find("use rank"), refusal.npos) << refusal;
        return;
    }
    const Comm comm = by("auto", "library");
    EXPECT_NE(collectives_text(comm).find("NCCL's order"), std::string::npos);
    for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
        const HostTensor got = sum(comm, dtype, 5000), expected = expected_sum(comm.size(), dtype, 5000);
        EXPECT_TRUE(close(got, expected.values(), 4, comm.size()));
        EXPECT_EQ(num_different(got, expected) > 0, comm.size() > 2)
            << "the sum of two is the same in any order";
    }
}

TEST_F(Ways, RefusalsSayWhatToUse) {
    for (const char* way : {"nccl", "mpi", "staged"}) {
        const std::string refusal = problem(way);
        if (refusal.empty()) continue;
        EXPECT_NE(refusal.find("parallel.collectives = " + std::string(way)), refusal.npos) << refusal;
        EXPECT_NE(refusal.find("use auto"), refusal.npos) << refusal;
    }
}

TEST_F(Ways, AutoSaysWhyItIsNotNccl) {
    if (!std::getenv("CUDA_EMULATION_NCCL_FAILS")) GTEST_SKIP() << "NCCL is not made to fail";
    const std::string reason = "NCCL does not start on rank 1: unhandled system error";
    EXPECT_NE(problem("auto", "library").find(reason), std::string::npos) << problem("auto", "library");
    if (problem("nccl").empty()) return;  // it is sums that fail
    EXPECT_NE(collectives_text(by("auto")).find(" (" + reason + "; set NCCL_DEBUG=WARN"), std::string::npos)
        << collectives_text(by("auto"));
    EXPECT_EQ(collectives_text(by("staged")).find(reason), std::string::npos);
    EXPECT_NE(problem("nccl").find(reason), std::string::npos) << problem("nccl");
}

TEST_F(Ways, AutoTakesMpiOnlyWhereThereIsNoOther) {
    if (!problem("staged").empty()) GTEST_SKIP() << "nothing is staged on this back end";
    const std::string text = collectives_text(by("auto"));
    EXPECT_EQ(text.find("from and to GPU memory"), text.npos) << text;
}

TEST_F(Ways, EndWithTheirCommunicators) {
    for (int round = 0; round < 20; ++round) {
        const Comm comm = by("auto");
        EXPECT_EQ(num_different(sum(comm, DType::f64, 100), expected_sum(comm.size(), DType::f64, 100)), 0);
    }
}

}  // namespace
}  // namespace switchyard
