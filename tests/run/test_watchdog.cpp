// The watchdog ends a silent process in order, says what it called last, even if the last words fail, and
// leaves a process alone that waits for others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <stdexcept>
#include <thread>

#include "core/calls.hpp"
#include "core/last_calls.hpp"
#include "core/sign_of_life.hpp"
#include "run/stop_requests.hpp"
#include "run/watchdog.hpp"

namespace switchyard {
namespace {

using namespace std::chrono_literals;

constexpr double soon_s = 0.01;

[[noreturn]] void silence() {
    for (;;) std::this_thread::sleep_for(1s);
}

struct WatchdogDeathTest : ::testing::Test {
    WatchdogDeathTest() { ::testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

TEST_F(WatchdogDeathTest, SilenceEndsTheProcessWithItsLastEvent) {
    const auto hang = [] {
        std::optional<WaitingForOthers> not_yet(std::in_place);
        const Watchdog watchdog(soon_s, 3);
        sign_of_life("forward", 7);
        not_yet.reset();
        silence();
    };
    EXPECT_EXIT(
        hang(), ::testing::ExitedWithCode(1),
        "\\[rank 3\\] no progress for .* s, last event: forward in step 7 \\(.*\\); .*run.hang_timeout");
}

/// A device that hangs lets the host go on to the end of a step; what it called last is all that is known.
TEST_F(WatchdogDeathTest, SilenceNamesTheLastCalls) {
    const auto hang = [] {
        std::optional<WaitingForOthers> not_yet(std::in_place);
        const Watchdog watchdog(soon_s, 1);
        note_phase("backward");
        count_kernel("matmul");
        count_kernel("rope");
        const CollectiveCall first{"all-reduce", "activations", 4, 3 << 20},
            second{"all-gather", "frozen", 2, 0};
        note_collective(first, CollectiveState::begun);
        note_collective(second, CollectiveState::begun);
        note_collective(first, CollectiveState::awaited);
        const WaitingForDevice waiting;
        not_yet.reset();
        silence();
    };
    EXPECT_EXIT(
        hang(), ::testing::ExitedWithCode(1),
        "last event: start \\(phase backward, last kernel: rope, last collective: all-reduce of "
        "activations, 3.00 MiB over 4 ranks, the host waits for it, the host waits for the device; this "
        "rank or one it waits for is stuck; ending all ranks\\); look");
}

TEST(LastCalls, AreForgottenWhenTheyEnd) {
    EXPECT_EQ(text_of(LastCalls{}), "");
    note_phase("data");
    { const WaitingForDevice waiting; }
    note_collective({"broadcast", nullptr, 2, 0}, CollectiveState::ended);
    EXPECT_THAT(text_of(last_calls()),
                ::testing::EndsWith("last collective: broadcast over 2 ranks, the host has gone on"));
    EXPECT_THAT(text_of(last_calls()), ::testing::StartsWith("phase data"));
    note_phase(nullptr);
    EXPECT_THAT(text_of(last_calls()), ::testing::Not(::testing::HasSubstr("phase")));
}

TEST_F(WatchdogDeathTest, LastWordsMayThrow) {
    const auto hang = [] {
        std::optional<WaitingForOthers> not_yet(std::in_place);
        const Watchdog watchdog(soon_s, 0,
                                [](const std::string&) { throw std::runtime_error("no file system"); });
        sign_of_life("a token");
        not_yet.reset();
        silence();
    };
    EXPECT_EXIT(hang(), ::testing::ExitedWithCode(1), "last event: a token \\(");
}

TEST(WatchdogTest, WhoWaitsForOthersIsNotSilent) {
    const WaitingForOthers waiting;
    const Watchdog watchdog(soon_s, 0, [](const std::string& problem) { FAIL() << problem; });
    std::this_thread::sleep_for(20 * 10ms);
}

/// A run that hangs after SIGTERM is ended after 20 s, whatever its own timeout.
TEST_F(WatchdogDeathTest, test_finding_23_sigterm_ends_what_hangs) {
    const auto hang = [] {
        note_terminations();
        const Watchdog watchdog(0, 0);
        sign_of_life("restore");
        std::raise(SIGTERM);
        silence();
    };
    EXPECT_EXIT(hang(), ::testing::ExitedWithCode(1), "no progress for .* s, last event: restore");
}

SignOfLife sign_at(double time_s, bool waiting = false) {
    return {.doing = "forward", .step = 1, .time_s = time_s, .waiting = waiting};
}

TEST(SilenceTest, IsTheTimeSinceTheLastSign) {
    Silence silence(sign_at(99.5), 100);
    EXPECT_DOUBLE_EQ(silence.seconds(), 0.5);
    for (int s = 101; s <= 140; ++s) silence.look(sign_at(99.5), s);
    EXPECT_DOUBLE_EQ(silence.seconds(), 40.5);
    silence.look(sign_at(140.5), 141);
    EXPECT_DOUBLE_EQ(silence.seconds(), 0.5);
    EXPECT_DOUBLE_EQ(silence.longest_s(), 41);
    silence.look(sign_at(140.5, true), 150);
    EXPECT_DOUBLE_EQ(silence.seconds(), 0);
}

/// A job that is suspended for an hour goes on, and what hangs after that is found as before.
TEST(SilenceTest, DoesNotCountWhileTheProcessIsStopped) {
    Silence silence(sign_at(100), 101);
    silence.look(sign_at(100), 3701);
    EXPECT_DOUBLE_EQ(silence.seconds(), 3);
    for (int s = 3702; s <= 3710; ++s) silence.look(sign_at(100), s);
    EXPECT_DOUBLE_EQ(silence.seconds(), 12);
    silence.look(sign_at(3710.5), 3711);
    EXPECT_DOUBLE_EQ(silence.seconds(), 0.5);
    EXPECT_DOUBLE_EQ(silence.longest_s(), 12.5);
    // Stopped after a sign that was not seen yet.
    silence.look(sign_at(3711.5), 7000);
    EXPECT_DOUBLE_EQ(silence.seconds(), 1.5);
}

TEST(WatchdogTest, NoTimeoutNoEnd) {
    const Watchdog watchdog(0, 0, [](const std::string& problem) { FAIL() << problem; });
    std::this_thread::sleep_for(20ms);
}

}  // namespace
}  // namespace switchyard
