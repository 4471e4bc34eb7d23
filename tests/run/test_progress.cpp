// The progress line: its text, one line every log_interval in a batch log, one live line on a terminal (here
// a pseudo-terminal as standard output).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "core/timer.hpp"
#include "io/files/files.hpp"
#include "run/progress.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

constexpr double no_limit = std::numeric_limits<double>::infinity();
constexpr const char* erase = "\r\033[K";

ProgressLine line_of(std::int64_t step, double eta_s = 100, double remaining_s = no_limit) {
    return {.step = step,
            .steps = 1000,
            .loss = 3.14159,
            .lr = 0.00123,
            .grad_norm = 0.456,
            .tokens_per_s = 12345.6,
            .mfu = 0.437,
            .eta_s = eta_s,
            .remaining_s = remaining_s};
}

std::string text_at(std::int64_t step) {
    return "step " + std::to_string(step) +
           "/1000  loss 3.1416  lr 1.23e-03  |g| 0.46  12346 tok/s  MFU 0.44  ETA 1:40";
}

/// Makes `descriptor` the standard output while it lives, without the launcher's variable.
class StandardOutput {
  public:
    explicit StandardOutput(int descriptor) : before_(dup(STDOUT_FILENO)) {
        std::fflush(stdout);
        dup2(descriptor, STDOUT_FILENO);
        unsetenv("OMPI_COMM_WORLD_RANK");
    }
    ~StandardOutput() {
        std::fflush(stdout);
        dup2(before_, STDOUT_FILENO);
        unsetenv("OMPI_COMM_WORLD_RANK");
    }
    StandardOutput(const StandardOutput&) = delete;
    StandardOutput& operator=(const StandardOutput&) = delete;

  private:
    FileDescriptor before_;
};

/// The text that `body` prints with a file as standard output.
template <class Body>
std::string in_batch_log(const Body& body) {
    const test::TemporaryDirectory folder;
    {
        const FileDescriptor file(open(folder.file("log").c_str(), O_CREAT | O_WRONLY, 0600));
        const StandardOutput redirected(file);
        body();
    }
    return folder.read("log");
}

class Terminal {
  public:
    explicit Terminal(unsigned short columns) {
        winsize size{.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
        int outer = -1, inner = -1;
        if (openpty(&outer, &inner, nullptr, nullptr, &size) != 0)
            throw std::runtime_error("no pseudo-terminal");
        outer_ = FileDescriptor(outer);
        inner_ = FileDescriptor(inner);
        termios mode{};
        tcgetattr(inner, &mode);
        cfmakeraw(&mode);  // line ends as they are printed
        tcsetattr(inner, TCSANOW, &mode);
    }
    operator int() const { return inner_; }
    /// The text printed since the last call. A mark tells where it ends, because written text arrives later.
    std::string shown() const {
        constexpr char mark = '\x1e';
        std::fflush(stdout);
        if (write(inner_, &mark, 1) != 1) throw std::runtime_error("write to the pseudo-terminal");
        std::string text;
        for (char c = 0; read(outer_, &c, 1) == 1 && c != mark;) text += c;
        return text;
    }

  private:
    FileDescriptor outer_, inner_;
};

/// The live line is drawn at most every 0.1 s.
void wait_for_next_draw() {
    const double start = seconds_now();
    while (seconds_now() - start < 0.11) usleep(10000);
}

TEST(ProgressTest, ABatchLogHasALineEveryLogInterval) {
    const std::string log = in_batch_log([] {
        Progress progress(4);
        for (int step = 1; step <= 9; ++step) progress.step(line_of(step));
        progress.line("saved");
        progress.end_line();
    });
    EXPECT_EQ(log, text_at(4) + "\n" + text_at(8) + "\nsaved\n");
}

TEST(ProgressTest, TheLastStepAndEvaluatedOnesHaveTheirLines) {
    const std::string log = in_batch_log([] {
        Progress progress(400);
        for (int step = 997; step <= 1000; ++step) {
            ProgressLine p = line_of(step);
            p.evaluated = step == 998;
            p.val_loss = 2.71828;
            progress.step(p);
        }
    });
    EXPECT_EQ(log, text_at(998) + "  val_loss 2.7183\n" + text_at(1000) + "\n");
}

TEST(ProgressTest, TimeToGoIsHeldAgainstTheWallLimit) {
    const auto printed = [](double eta_s, double remaining_s) {
        const std::string log = in_batch_log([&] { Progress(1).step(line_of(7, eta_s, remaining_s)); });
        return log.substr(log.find("ETA"));
    };
    EXPECT_EQ(printed(100, no_limit), "ETA 1:40\n");
    EXPECT_EQ(printed(3725, 7200), "ETA 1:02:05 of 2:00:00 left\n");
    EXPECT_EQ(printed(7200, 7200), "ETA 2:00:00 of 2:00:00 left\n");
    EXPECT_EQ(printed(7201, 7200), "ETA 2:00:01 of 2:00:00 left (too short)\n");
    EXPECT_EQ(printed(5, -3), "ETA 5.0 s of -3.0 s left (too short)\n");
}

TEST(ProgressTest, ATerminalShowsOneLineThatIsDrawnAnew) {
    const Terminal terminal(200);
    const StandardOutput redirected(terminal);
    Progress progress(1);
    progress.step(line_of(1));
    EXPECT_EQ(terminal.shown(), erase + text_at(1)) << "no line end: it is live";
    wait_for_next_draw();
    progress.step(line_of(2));
    EXPECT_EQ(terminal.shown(), erase + text_at(2));
    progress.line("saved");
    EXPECT_EQ(terminal.shown(), std::string(erase) + "saved\n") << "a line that stays takes its place";
    progress.line("more");
    EXPECT_EQ(terminal.shown(), "more\n") << "nothing to erase";
    wait_for_next_draw();
    progress.step(line_of(3));
    progress.end_line();
    EXPECT_EQ(terminal.shown(), erase + text_at(3) + "\n") << "what follows must not overwrite it";
    wait_for_next_draw();
    progress.step(line_of(4));
    progress.step(line_of(1000));
    EXPECT_EQ(terminal.shown(), erase + text_at(4) + erase + text_at(1000) + "\n");
}

TEST(ProgressTest, AQuickRunDoesNotFloodTheTerminal) {
    const Terminal terminal(200);
    const StandardOutput redirected(terminal);
    const double start = seconds_now();
    std::string shown;
    {
        Progress progress(1);
        for (int step = 1; step < 1000; ++step) {
            progress.step(line_of(step));
            if (step % 20 == 0) shown += terminal.shown();
        }
        shown += terminal.shown();
        const double most = (seconds_now() - start) / 0.1 + 1;
        EXPECT_LE(static_cast<double>(std::count(shown.begin(), shown.end(), '\r')), most);
    }
    EXPECT_EQ(terminal.shown(), erase) << "a live line goes with its run";
}

/// The read begins at 100 s and is half done after a minute.
TEST(ProgressTest, ALongReadIsToldEveryTenSeconds) {
    constexpr std::uint64_t mib = 1 << 20;
    const std::string log = in_batch_log([] {
        Progress progress(1);
        for (std::uint64_t i = 1; i < 240; ++i)
            progress.amount("are read", i * mib, 240 * mib, 99.5 + 0.5 * static_cast<double>(i));
        progress.amount("are read", 240 * mib, 240 * mib, 219.5);
        progress.line("resuming");
        progress.amount("are read", 1 * mib, 2 * mib, 1000);  // another read is short again
        progress.amount("are read", 2 * mib, 2 * mib, 1011);
    });
    EXPECT_TRUE(log.starts_with("21.0 MiB of 240 MiB are read (9 %)\n41.0 MiB of 240 MiB are read (17 %)\n"))
        << log;
    EXPECT_TRUE(log.ends_with("\n221 MiB of 240 MiB are read (92 %)\nresuming\n")) << log;
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 12);
}

TEST(ProgressTest, ATerminalShowsALongReadAndForgetsIt) {
    const Terminal terminal(200);
    const StandardOutput redirected(terminal);
    Progress progress(1);
    progress.amount("are read", 1024, 4096, 100);
    EXPECT_EQ(terminal.shown(), std::string(erase) + "1.00 KiB of 4.00 KiB are read (25 %)");
    progress.amount("are read", 2048, 4096, 100.05);
    EXPECT_EQ(terminal.shown(), "") << "too soon";
    progress.amount("are read", 3072, 4096, 100.2);
    EXPECT_EQ(terminal.shown(), std::string(erase) + "3.00 KiB of 4.00 KiB are read (75 %)");
    progress.amount("are read", 4096, 4096, 100.21);
    EXPECT_EQ(terminal.shown(), erase) << "what follows may come from elsewhere";
}

TEST(ProgressTest, ALineIsCutToTheTerminal) {
    const Terminal terminal(30);
    const StandardOutput redirected(terminal);
    EXPECT_EQ(terminal_columns(), 30);
    Progress progress(1);
    progress.step(line_of(1));
    EXPECT_EQ(terminal.shown(), erase + text_at(1).substr(0, 29)) << "one that wraps cannot be erased";
    progress.step(line_of(1000));
    EXPECT_EQ(terminal.shown(), erase + text_at(1000) + "\n") << "one that stays may wrap";
}

/// The number of columns seen by a rank with output `own` that was started by a launcher with output
/// `launcher`.
int columns_of_rank(int own, int launcher) {
    const StandardOutput redirected(launcher);
    const pid_t child = fork();
    if (child == 0) {
        dup2(own, STDOUT_FILENO);
        setenv("OMPI_COMM_WORLD_RANK", "0", 1);
        _exit(terminal_columns());
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ProgressTest, UnderMpirunTheLaunchersTerminalCounts) {
    const Terminal own(70), outer(90);
    const test::TemporaryDirectory folder;
    const FileDescriptor file(open(folder.file("log").c_str(), O_CREAT | O_WRONLY, 0600));
    EXPECT_EQ(columns_of_rank(own, outer), 90);
    EXPECT_EQ(columns_of_rank(own, file), 0) << "mpirun's output goes to a file";
    EXPECT_EQ(columns_of_rank(file, outer), 0) << "the rank's own does";
}

}  // namespace
}  // namespace switchyard
