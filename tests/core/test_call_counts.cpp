// Counts of kernel calls by phase: which calls belong to a step, what is kept, what is printed.
#include <gtest/gtest.h>

#include <stdexcept>

#include "core/arena.hpp"
#include "core/call_counts.hpp"
#include "core/timer.hpp"

namespace switchyard {
namespace {

class CallCountsTest : public ::testing::Test {
  protected:
    void SetUp() override { count_calls(true); }
    void TearDown() override { count_calls(false); }
    PhaseTimer timer_;
};

void call(const char* kernel, int times) {
    for (int i = 0; i < times; ++i) count_kernel(kernel);
}

TEST_F(CallCountsTest, CallsBelongToThePhaseThatEndsNext) {
    call("before the step", 5);
    {
        const CountedStep step;
        call("matmul", 3);
        call("norm", 1);
        count_call(Call::upload);
        timer_.lap(Phase::forward);
        call("matmul", 2);
        timer_.lap(Phase::backward);
        call("matmul", 4);
        count_call(Call::host_read);
        timer_.lap(Phase::forward);
    }
    const StepCalls calls = calls_of_last_step();
    EXPECT_EQ(calls[Phase::forward][Call::kernel], 8);
    EXPECT_EQ(calls[Phase::forward].kernels,
              (std::map<std::string, std::int64_t>{{"matmul", 7}, {"norm", 1}}));
    EXPECT_EQ(calls[Phase::forward][Call::upload], 1);
    EXPECT_EQ(calls[Phase::forward][Call::host_read], 1);
    EXPECT_EQ(calls[Phase::backward][Call::kernel], 2);
    EXPECT_EQ(calls.total(Call::kernel), 10);
    EXPECT_EQ(calls.total(Call::collective), 0);
}

TEST_F(CallCountsTest, TheArenaIsCounted) {
    call("other", 1);
    allocate_scratch([](Arena& arena) { arena.take(MemoryClass::workspace, DType::f32, {7}); });
    EXPECT_EQ(calls_since_phase()[Call::allocation], 1);
    EXPECT_EQ(calls_since_phase()[Call::kernel], 1);
}

TEST_F(CallCountsTest, LinesShowTheLastStepAndTheMostOfAny) {
    EXPECT_TRUE(call_count_lines().empty());
    for (int calls : {2, 9, 4}) {
        const CountedStep step;
        call("zero", calls);
        timer_.lap(Phase::switching);
    }
    const auto lines = call_count_lines();
    ASSERT_EQ(lines.size(), 4u) << "head, one phase, its kernels, all";
    EXPECT_NE(lines[1].find("switching"), std::string::npos);
    EXPECT_NE(lines[1].find("4 (most 9)"), std::string::npos) << lines[1];
    EXPECT_NE(lines[2].find("zero 4"), std::string::npos) << lines[2];
    EXPECT_NE(lines[3].find("4 (most 9)"), std::string::npos) << lines[3];
}

TEST_F(CallCountsTest, AStepThatFailsIsNotTheLastOne) {
    {
        const CountedStep step;
        call("zero", 1);
        timer_.lap(Phase::forward);
    }
    EXPECT_THROW(
        {
            const CountedStep step;
            call("zero", 7);
            timer_.lap(Phase::forward);
            throw std::runtime_error("fails");
        },
        std::runtime_error);
    EXPECT_EQ(calls_of_last_step().total(Call::kernel), 1);
}

TEST_F(CallCountsTest, NothingIsCountedWhenOff) {
    count_calls(false);
    {
        const CountedStep step;
        call("zero", 3);
        timer_.lap(Phase::forward);
    }
    EXPECT_EQ(calls_since_phase()[Call::kernel], 0);
    EXPECT_EQ(calls_of_last_step().total(Call::kernel), 0);
    EXPECT_TRUE(call_count_lines().empty());
}

}  // namespace
}  // namespace switchyard
