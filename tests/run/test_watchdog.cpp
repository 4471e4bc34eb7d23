// The watchdog ends a silent process in order, even if the last words fail, and leaves a process alone that
// waits for others.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <stdexcept>
#include <thread>

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

TEST(WatchdogTest, NoTimeoutNoEnd) {
    const Watchdog watchdog(0, 0, [](const std::string& problem) { FAIL() << problem; });
    std::this_thread::sleep_for(20ms);
}

}  // namespace
}  // namespace switchyard
