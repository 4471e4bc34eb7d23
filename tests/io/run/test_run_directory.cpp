// Run directory and log: locks end with their holder, files change in one step, and the log tells one
// history.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <regex>

#include "core/error.hpp"
#include "io/run/run_directory.hpp"
#include "io/run/run_log.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using nlohmann::ordered_json;
using test::TemporaryDirectory;

template <class Action>
std::string user_error(Action action) {
    return test::message_of<UserError>(action);
}

TEST(RunDirectoryTest, IsMadeWithItsFolders) {
    const TemporaryDirectory folder;
    const RunDirectory run(folder.file("runs/a/b/"));
    EXPECT_EQ(run.path(), folder.file("runs/a/b"));
    EXPECT_TRUE(folder.has("runs/a/b/checkpoints"));
    EXPECT_EQ(run.log(), folder.file("runs/a/b/log.jsonl"));
    EXPECT_CONTAINS(folder.read("runs/a/b/lock"), "pid " + std::to_string(::getpid()) + " on host ");
}

TEST(RunDirectoryTest, SecondRunIsRefusedAndToldByWhom) {
    const TemporaryDirectory folder;
    {
        const RunDirectory run(folder.path());
        const std::string message = user_error([&] { RunDirectory second(folder.path()); });
        EXPECT_CONTAINS(message, "in use by pid " + std::to_string(::getpid()) + " on host ");
        EXPECT_CONTAINS(message, folder.path());
        // A refused holder does not replace the first one's name in the file.
        EXPECT_CONTAINS(folder.read("lock"), "pid " + std::to_string(::getpid()));
    }
    EXPECT_NO_THROW(RunDirectory(folder.path()));
}

TEST(RunDirectoryTest, LockIsFreeAfterKill9OfItsHolder) {
    const TemporaryDirectory folder;
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t holder = ::fork();
    if (holder == 0) {
        const RunDirectory run(folder.path());
        if (::write(ready[1], "x", 1) != 1) ::_exit(1);
        for (;;) ::pause();
    }
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    EXPECT_CONTAINS(user_error([&] { RunDirectory second(folder.path()); }),
                    "in use by pid " + std::to_string(holder));
    ASSERT_EQ(::kill(holder, SIGKILL), 0);
    ASSERT_EQ(::waitpid(holder, nullptr, 0), holder);
    const RunDirectory run(folder.path());
    EXPECT_CONTAINS(folder.read("lock"), "pid " + std::to_string(::getpid()));
    EXPECT_FALSE(std::regex_search(folder.read("lock"), std::regex("pid " + std::to_string(holder) + "\\b")));
    ::close(ready[0]);
    ::close(ready[1]);
}

TEST(RunDirectoryTest, LockIsNotInheritedByStartedPrograms) {
    const TemporaryDirectory folder;
    pid_t child = -1;
    {
        const RunDirectory run(folder.path());
        child = ::fork();
        if (child == 0) {
            ::execlp("sleep", "sleep", "60", nullptr);
            ::_exit(127);
        }
        // The child holds the lock until exec closes it, so wait until it runs another program.
        const std::filesystem::path link = "/proc/" + std::to_string(child) + "/exe",
                                    ours = std::filesystem::read_symlink("/proc/self/exe");
        while (std::filesystem::read_symlink(link) == ours) {}
    }
    EXPECT_NO_THROW(RunDirectory(folder.path()));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
}

TEST(RunDirectoryTest, PathsThatCannotBeUsedAreNamed) {
    const TemporaryDirectory folder;
    const std::string plain = folder.write("plain", "x");
    EXPECT_CONTAINS(user_error([&] { RunDirectory run(plain); }), "`" + plain + "`");
    EXPECT_CONTAINS(user_error([&] { RunDirectory run(plain + "/run"); }), "cannot make run directory");
    EXPECT_CONTAINS(user_error([&] { RunDirectory run(""); }), "run.dir is empty");
    EXPECT_CONTAINS(user_error([&] { RunDirectory run("/proc/switchyard"); }), "/proc/switchyard");
    // Exists but cannot be written to, even by root.
    EXPECT_CONTAINS(user_error([&] { RunDirectory run("/proc/self"); }), "is not writable");
}

TEST(RunDirectoryTest, FilesAreWrittenWholeAndReadBack) {
    const TemporaryDirectory folder;
    const RunDirectory run(folder.path());
    EXPECT_EQ(run.read_config(), std::nullopt);
    EXPECT_FALSE(run.read_status().has_value());
    run.write_config("[run]\nsteps = 5\n");
    EXPECT_EQ(run.read_config(), "[run]\nsteps = 5\n");
    run.write_environment({{"host", "h\xFF"}, {"rate", 0.5}});  // a byte that is not UTF-8 must not end a run
    EXPECT_EQ(ordered_json::parse(folder.read("environment.json"))["rate"], 0.5);
    run.write_status({"running", "", 3, ""});
    run.write_status({"requeue", "SIGUSR1 \"received\"", 12, "2026-01-02T03:04:05Z"});
    const auto status = run.read_status();
    ASSERT_TRUE(status.has_value());
    EXPECT_EQ(status->outcome, "requeue");
    EXPECT_EQ(status->reason, "SIGUSR1 \"received\"");
    EXPECT_EQ(status->step, 12);
    EXPECT_EQ(status->time, "2026-01-02T03:04:05Z");
    EXPECT_FALSE(folder.has("status.json.partial"));
    folder.write("status.json", "{\"outcome\": ");
    EXPECT_FALSE(run.read_status().has_value());
    EXPECT_EQ(utc_time().size(), 20u);
}

/// Runs `action` in a child that cannot write beyond `bytes` in a file; true if it returned true.
template <class Action>
bool with_file_limit(rlim_t bytes, Action action) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{bytes, bytes};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        try {
            ::_exit(action() ? 0 : 1);
        } catch (...) {
            ::_exit(2);
        }
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(RunDirectoryTest, FailedWriteLeavesTheOldFile) {
    const TemporaryDirectory folder;
    const RunDirectory run(folder.path());
    run.write_config("old");
    EXPECT_TRUE(with_file_limit(1000, [&] {
        const std::string message = user_error([&] { run.write_config(std::string(5000, 'x')); });
        return message.find("config.cfg") != std::string::npos &&
               message.find("too large") != std::string::npos;
    }));
    EXPECT_EQ(folder.read("config.cfg"), "old");
    EXPECT_FALSE(folder.has("config.cfg.partial"));
}

TEST(RunLogTest, FloatsComeBackExactlyWith17Digits) {
    EXPECT_EQ(log_line({{"step", 3},
                        {"loss", 0.1},
                        {"one", 1.0},
                        {"text", "a\"b\n"},
                        {"list", {1, 2.5, nullptr, true}}}),
              "{\"step\": 3, \"loss\": 0.10000000000000001, \"one\": 1.0, \"text\": \"a\\\"b\\n\", \"list\": "
              "[1, 2.5, null, true]}");
    const double values[] = {1.0 / 3, 6.02e23, -1e-300, 4.9e-324, 1e17, 123456789012345678.0};
    for (const double value : values) {
        EXPECT_EQ(ordered_json::parse(log_line({{"x", value}}))["x"].get<double>(), value);
        EXPECT_TRUE(ordered_json::parse(log_line({{"x", value}}))["x"].is_number_float());
    }
    EXPECT_EQ(log_line({{"x", std::nan("")}, {"y", std::numeric_limits<double>::infinity()}}),
              "{\"x\": null, \"y\": null}");
}

TEST(RunLogTest, LinesAreVisibleAtOnceAndAppended) {
    const TemporaryDirectory folder;
    {
        RunLog log(folder.file("log.jsonl"));
        log.write({{"event", "start"}, {"step", 0}});
        EXPECT_EQ(folder.read("log.jsonl"), "{\"event\": \"start\", \"step\": 0}\n");
    }
    RunLog log(folder.file("log.jsonl"));
    log.write({{"step", 1}});
    EXPECT_EQ(folder.read("log.jsonl"), "{\"event\": \"start\", \"step\": 0}\n{\"step\": 1}\n");
    EXPECT_FALSE(folder.has("log.superseded.jsonl"));
    EXPECT_CONTAINS(user_error([&] { RunLog(folder.file("no/log.jsonl")); }), "no/log.jsonl");
}

TEST(RunLogTest, LinesBeyondTheStepMoveAside) {
    const TemporaryDirectory folder;
    folder.write(
        "log.jsonl",
        "{\"event\": \"start\"}\n{\"step\": 1}\n{\"step\": 2}\n{\"event\": \"save\", \"step\": "
        "2}\n{\"event\": \"note\"}\n"
        "{\"step\": 3}\n{\"event\": \"lost\"}\nnot json\n{\"step\": 4, \"loss\": 1.5}\n{\"step\": 5, \"lo");
    RunLog log(folder.file("log.jsonl"));
    EXPECT_EQ(folder.read("log.superseded.jsonl"), "{\"step\": 5, \"lo\n");
    EXPECT_EQ(log.move_aside_beyond(2), 4);
    const std::string kept =
        "{\"event\": \"start\"}\n{\"step\": 1}\n{\"step\": 2}\n{\"event\": \"save\", \"step\": "
        "2}\n{\"event\": \"note\"}\n";
    EXPECT_EQ(folder.read("log.jsonl"), kept);
    EXPECT_EQ(
        folder.read("log.superseded.jsonl"),
        "{\"step\": 5, \"lo\n{\"step\": 3}\n{\"event\": \"lost\"}\nnot json\n{\"step\": 4, \"loss\": 1.5}\n");
    log.write({{"step", 3}});
    EXPECT_EQ(folder.read("log.jsonl"), kept + "{\"step\": 3}\n");
    EXPECT_EQ(log.move_aside_beyond(3), 0);
    EXPECT_EQ(log.move_aside_beyond(2), 1);
    EXPECT_EQ(folder.read("log.jsonl"), kept);
    EXPECT_EQ(log.move_aside_beyond(0), 4);
    EXPECT_EQ(folder.read("log.jsonl"), "{\"event\": \"start\"}\n");
    EXPECT_FALSE(folder.has("log.jsonl.partial"));
}

TEST(RunLogTest, LinesThatStayAreShownOnceAndAreNotCopied) {
    const TemporaryDirectory folder;
    const std::string path = folder.write(
        "log.jsonl",
        "{\"event\": \"start\"}\n{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n{\"event\": \"lost\"}\n");
    const auto file = [&] {
        struct stat status {};
        ::stat(path.c_str(), &status);
        return status.st_ino;
    };
    RunLog log(path);
    const auto before = file();
    std::vector<std::string> seen;
    EXPECT_EQ(log.move_aside_beyond(2, [&](const auto& line) { seen.push_back(line.dump()); }), 2);
    EXPECT_EQ(seen, (std::vector<std::string>{"{\"event\":\"start\"}", "{\"step\":1}", "{\"step\":2}"}));
    EXPECT_EQ(log.move_aside_beyond(2), 0);
    EXPECT_EQ(file(), before) << "the log was shortened, not written anew";
    EXPECT_EQ(folder.read("log.jsonl"), "{\"event\": \"start\"}\n{\"step\": 1}\n{\"step\": 2}\n");
}

TEST(RunLogTest, LinesThatStayMayFollowLinesThatMove) {
    const TemporaryDirectory folder;
    const std::string path =
        folder.write("log.jsonl", "{\"step\": 1}\nnot json\n{\"step\": 2}\n[3]\n{\"event\": \"note\"}\n");
    RunLog log(path);
    EXPECT_EQ(log.move_aside_beyond(2), 2);
    log.write({{"step", 3}});
    EXPECT_EQ(folder.read("log.jsonl"),
              "{\"step\": 1}\n{\"step\": 2}\n{\"event\": \"note\"}\n{\"step\": 3}\n");
    EXPECT_EQ(folder.read("log.superseded.jsonl"), "not json\n[3]\n");
}

/// 100 MiB of zeros after the last line, as blocks that never reached the disk leave them.
TEST(RunLogTest, test_finding_19_zeros_of_a_power_loss_are_dropped) {
    const TemporaryDirectory folder;
    const std::string path = folder.write("log.jsonl", "{\"step\": 1}\n{\"step\": 2");
    std::filesystem::resize_file(path, 100 << 20);
    RunLog log(path);
    EXPECT_EQ(folder.read("log.jsonl"), "{\"step\": 1}\n");
    EXPECT_EQ(folder.read("log.superseded.jsonl"), "{\"step\": 2\n");
    log.write({{"step", 2}});
    EXPECT_EQ(folder.read("log.jsonl"), "{\"step\": 1}\n{\"step\": 2}\n");
}

TEST(RunLogTest, test_finding_19_zeros_between_lines_are_dropped) {
    const TemporaryDirectory folder;
    const std::string path =
        folder.write("log.jsonl", "{\"step\": 1}\n" + std::string(100 << 20, '\0') + "{\"step\": 2}\n" +
                                      std::string(2, '\0') + "\n{\"step\": 3}\n");
    RunLog log(path);
    int shown = 0;
    EXPECT_EQ(log.move_aside_beyond(2, [&](const ordered_json& line) { shown += line["step"].get<int>(); }),
              1);
    EXPECT_EQ(shown, 3);
    EXPECT_EQ(folder.read("log.jsonl"), "{\"step\": 1}\n{\"step\": 2}\n");
    EXPECT_EQ(folder.read("log.superseded.jsonl"), "{\"step\": 3}\n");
    log.write({{"step", 4}});
    EXPECT_EQ(log.move_aside_beyond(4), 0);
    EXPECT_EQ(folder.read("log.jsonl"), "{\"step\": 1}\n{\"step\": 2}\n{\"step\": 4}\n");
}

TEST(RunLogTest, test_finding_19_torn_lines_and_crowded_ones_take_linear_time) {
    const TemporaryDirectory folder;
    std::string crowded = "{\"step\": 1";
    for (int i = 0; i < 400'000; ++i) crowded += ", \"" + std::to_string(i) + "\": 1";
    const std::string path =
        folder.write("log.jsonl", "{\"step\": 1}\n" + crowded + "}\n" + std::string(100 << 20, '['));
    RunLog log(path);
    EXPECT_EQ(log.move_aside_beyond(2), 1);
    EXPECT_EQ(folder.read("log.jsonl"), "{\"step\": 1}\n");
    EXPECT_EQ(folder.read("log.superseded.jsonl").size(), (100 << 20) + crowded.size() + 3);
}

TEST(RunLogTest, test_finding_22_a_link_in_place_of_the_log_is_not_written_through) {
    const TemporaryDirectory folder;
    const std::string other = folder.write("other", "not to be lost");
    for (const char* name : {"log.jsonl", "lock"}) {
        std::filesystem::remove(folder.file(name));
        std::filesystem::create_symlink(other, folder.file(name));
        EXPECT_CONTAINS(user_error([&] {
                            RunDirectory run(folder.path());
                            RunLog log(run.log());
                        }),
                        std::string(name) + "` is a symbolic link");
        std::filesystem::remove(folder.file(name));
    }
    std::filesystem::create_symlink(other, folder.file(".write_test"));
    RunDirectory{folder.path()};
    EXPECT_EQ(folder.read("other"), "not to be lost");
}

TEST(RunLogTest, test_finding_23_a_pipe_in_place_of_log_lock_or_status_is_not_waited_for) {
    const TemporaryDirectory folder;
    for (const char* name : {"log.jsonl", "lock", "status.json"}) {
        std::filesystem::remove(folder.file(name));
        ASSERT_EQ(::mkfifo(folder.file(name).c_str(), 0600), 0);
        const std::string error = user_error([&] {
            RunDirectory run(folder.path());
            RunLog log(run.log());
            EXPECT_EQ(run.read_status(), std::nullopt);
            run.write_status({"running", "", 3, ""});
            EXPECT_EQ(run.read_status()->step, 3);
        });
        EXPECT_CONTAINS(error, std::string(name) == "status.json" ? "" : "is not a regular file");
        std::filesystem::remove(folder.file(name));
    }
}

TEST(RunLogTest, FullDiskIsReportedOnceAndLeavesWholeLines) {
    const TemporaryDirectory folder;
    const bool good = with_file_limit(100, [&] {
        RunLog log(folder.file("log.jsonl"));
        int ends[2];  // a pipe has no size limit; the file of gtest's capture has one
        if (::pipe(ends) != 0 || ::dup2(ends[1], STDERR_FILENO) < 0) return false;
        log.write({{"step", 1}, {"text", std::string(60, 'a')}});
        log.write({{"step", 2}, {"text", std::string(60, 'b')}});
        log.write({{"step", 3}, {"text", std::string(60, 'c')}});
        log.write({{"step", 4}});
        char bytes[1000];
        const std::string output(
            bytes, static_cast<std::size_t>(std::max<ssize_t>(::read(ends[0], bytes, sizeof bytes), 0)));
        return log.num_lost() == 2 &&
               output.find("switchyard: warning: cannot write `" + folder.file("log.jsonl")) == 0 &&
               output.find("warning") == output.rfind("warning");
    });
    EXPECT_TRUE(good);
    EXPECT_EQ(folder.read("log.jsonl"),
              "{\"step\": 1, \"text\": \"" + std::string(60, 'a') + "\"}\n{\"step\": 4}\n");
}

}  // namespace
}  // namespace switchyard
