// The lock of a run directory on file systems whose locks hold on one machine only: signs of life decide.
// Text in the lock file plays the other machine.
#include <gtest/gtest.h>
#include <sys/file.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "core/error.hpp"
#include "core/timer.hpp"
#include "io/run/run_lock.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using test::TemporaryDirectory;

constexpr RunLock::Times quick{.beat_s = 0.05, .patience_s = 1};
constexpr RunLock::Times patient{.beat_s = 0.05, .patience_s = 60};
const std::string other_machine = "pid 7 on host other\nother/id 0123456789abcdef ";

std::string user_error(const TemporaryDirectory& folder, RunLock::Times times) {
    return test::message_of<UserError>([&] { RunLock lock(folder.path(), folder.file("lock"), times); });
}

/// Writes like another holder: over the old text, so that the file is never empty in between.
void overwrite(const TemporaryDirectory& folder, const std::string& text) {
    std::fstream(folder.file("lock"), std::ios::in | std::ios::out | std::ios::binary) << text;
}

/// Waits for a condition that must become true; fails after a minute.
template <class Condition>
void wait_until(Condition condition) {
    const double end = seconds_now() + 60;
    bool met = false;
    while (!(met = condition()) && seconds_now() < end)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(met);
}

TEST(RunLockTest, IsEmptyAfterARelease) {
    const TemporaryDirectory folder;
    {
        const RunLock lock(folder.path(), folder.file("lock"), quick);
        EXPECT_CONTAINS(folder.read("lock"), "pid ");
    }
    EXPECT_EQ(folder.read("lock"), "");
}

TEST(RunLockTest, ADirectoryReleasedElsewhereIsTakenAtOnce) {
    const TemporaryDirectory folder;
    folder.write("lock", "");
    const double start = seconds_now();
    const RunLock lock(folder.path(), folder.file("lock"), patient);
    EXPECT_LT(seconds_now() - start, patient.patience_s / 2);
}

TEST(RunLockTest, AHolderThatCrashedOnThisMachineIsNotWaitedFor) {
    const TemporaryDirectory folder;
    std::string left_behind;
    {
        const RunLock lock(folder.path(), folder.file("lock"), quick);
        left_behind = folder.read("lock");
    }
    folder.write("lock", left_behind);  // as if it had not been released
    const double start = seconds_now();
    const RunLock lock(folder.path(), folder.file("lock"), patient);
    EXPECT_LT(seconds_now() - start, patient.patience_s / 2);
    EXPECT_NE(folder.read("lock"), left_behind);
}

TEST(RunLockTest, AHolderElsewhereThatGivesASignOfLifeKeepsTheDirectory) {
    const TemporaryDirectory folder;
    folder.write("lock", other_machine + "000000000001\n");
    std::atomic<bool> end = false;
    std::thread holder([&] {
        for (int beat = 2; !end; ++beat) {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            overwrite(folder, other_machine + "00000000000" + std::to_string(beat % 10) + "\n");
        }
    });
    const std::string message = user_error(folder, patient);
    end = true;
    holder.join();
    EXPECT_CONTAINS(message, "in use by pid 7 on host other ");
    EXPECT_CONTAINS(folder.read("lock"), other_machine);
}

TEST(RunLockTest, AHolderElsewhereThatStaysSilentLosesTheDirectory) {
    const TemporaryDirectory folder;
    folder.write("lock", other_machine + "000000000001\n");
    const double start = seconds_now();
    const RunLock lock(folder.path(), folder.file("lock"), quick);
    EXPECT_GE(seconds_now() - start, quick.patience_s);
    EXPECT_CONTAINS(folder.read("lock"), "pid " + std::to_string(::getpid()));
    EXPECT_NO_THROW(lock.check());
}

TEST(RunLockTest, AHolderElsewhereThatReleasesIsFollowed) {
    const TemporaryDirectory folder;
    folder.write("lock", other_machine + "000000000001\n");
    std::thread holder([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        folder.write("lock", "");
    });
    const double start = seconds_now();
    EXPECT_EQ(user_error(folder, patient), "");
    EXPECT_LT(seconds_now() - start, patient.patience_s / 2);
    holder.join();
}

TEST(RunLockTest, TheHolderGivesSignsOfLife) {
    const TemporaryDirectory folder;
    const RunLock lock(folder.path(), folder.file("lock"), quick);
    const std::string first = folder.read("lock");
    wait_until([&] { return folder.read("lock") != first; });
    EXPECT_EQ(folder.read("lock").size(), first.size());
    EXPECT_NO_THROW(lock.check());
}

TEST(RunLockTest, AHolderThatWasReplacedNoticesAndKeepsQuiet) {
    const TemporaryDirectory folder;
    const std::string theirs = other_machine + "000000000001\n";
    {
        const RunLock lock(folder.path(), folder.file("lock"), quick);
        // Written again in case a beat was under way; it must still be there several beats later.
        wait_until([&] {
            folder.write("lock", theirs);
            std::this_thread::sleep_for(std::chrono::milliseconds(300));
            return folder.read("lock") == theirs;
        });
        EXPECT_CONTAINS(test::message_of<UserError>([&] { lock.check(); }),
                        "taken over by pid 7 on host other");
    }
    EXPECT_EQ(folder.read("lock"), theirs);
}

TEST(RunLockTest, TheSystemsLockNeedsNoSignOfLife) {
    const TemporaryDirectory folder;
    const RunLock silent(folder.path(), folder.file("lock"), {.beat_s = 3600, .patience_s = 1});
    EXPECT_CONTAINS(user_error(folder, quick), "in use by pid " + std::to_string(::getpid()));
}

}  // namespace
}  // namespace switchyard
