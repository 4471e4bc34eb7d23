// Every iteration runs once, on the threads that the loop is worth, and what one throws is thrown by the
// loop.
#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <thread>
#include <vector>

#include "core/error.hpp"
#include "core/shared_loop.hpp"

namespace switchyard {
namespace {

/// Of each iteration: how often it ran, and the OpenMP number of its thread.
struct Ran {
    std::vector<int> times, thread;
    explicit Ran(std::int64_t count)
        : times(static_cast<std::size_t>(count)), thread(static_cast<std::size_t>(count), -1) {}
    auto body() {
        return [this](std::int64_t i) {
            ++times[static_cast<std::size_t>(i)];
            thread[static_cast<std::size_t>(i)] = omp_get_thread_num();
        };
    }
};

class SharedLoop : public ::testing::Test {
  protected:
    void SetUp() override { omp_set_num_threads(3); }
    void TearDown() override { omp_set_num_threads(threads_before_); }

  private:
    int threads_before_ = omp_get_max_threads();
};

TEST_F(SharedLoop, EveryIterationRunsOnce) {
    for (const std::int64_t count : {0, 1, 2, 3, 4, 7, 100})
        for (const bool worth : {false, true}) {
            Ran shared(count), in_turns(count);
            for_shared(count, worth, shared.body());
            for_in_turns(count, worth, in_turns.body());
            EXPECT_EQ(shared.times, std::vector<int>(static_cast<std::size_t>(count), 1)) << count;
            EXPECT_EQ(in_turns.times, std::vector<int>(static_cast<std::size_t>(count), 1)) << count;
        }
}

TEST_F(SharedLoop, SharesAreEqualAndConsecutive) {
    Ran ran(8);
    for_shared(8, true, ran.body());
    EXPECT_EQ(ran.thread, (std::vector<int>{0, 0, 0, 1, 1, 1, 2, 2}));
}

TEST_F(SharedLoop, WhatIsNotWorthItStaysOnTheCallingThread) {
    const auto here = std::this_thread::get_id();
    bool elsewhere = false;
    std::vector<std::int64_t> order;
    const auto body = [&](std::int64_t i) {
        elsewhere |= std::this_thread::get_id() != here || omp_in_parallel();
        order.push_back(i);
    };
    for_shared(3, false, body);
    for_in_turns(3, false, body);
    omp_set_num_threads(1);  // and what has no other thread
    for_shared(3, true, body);
    for_in_turns(3, true, body);
    EXPECT_FALSE(elsewhere);
    EXPECT_EQ(order, (std::vector<std::int64_t>{0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}));
}

TEST_F(SharedLoop, ALoopInALoopStaysOnItsThread) {
    EXPECT_EQ(loop_threads(true), 3);
    EXPECT_EQ(loop_threads(false), 1);
    std::atomic<int> elsewhere{0}, inner{0};
    for_shared(3, true, [&](std::int64_t) {
        const auto here = std::this_thread::get_id();
        const int number = omp_get_thread_num();
        elsewhere += loop_threads(true) != 1;
        for_shared(5, true, [&](std::int64_t) {
            elsewhere += std::this_thread::get_id() != here || omp_get_thread_num() != number;
            ++inner;
        });
    });
    EXPECT_EQ(elsewhere, 0);
    EXPECT_EQ(inner, 15);
}

TEST_F(SharedLoop, ThrowsWhatAnIterationThrows) {
    for (const bool worth : {false, true}) {
        const auto body = [](std::int64_t i) { require(i != 5, "iteration {}", i); };
        EXPECT_THROW(for_shared(9, worth, body), UserError);
        EXPECT_THROW(for_in_turns(9, worth, body), UserError);
        EXPECT_NO_THROW(for_shared(5, worth, body));
    }
}

}  // namespace
}  // namespace switchyard
