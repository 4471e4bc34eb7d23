// Lines are written whole and flushed, so that launchers that merge ranks do not tear them. One that cannot
// be written is lost; the run goes on.
#include "run/progress.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/output.hpp"
#include "core/timer.hpp"
#include "core/units.hpp"
#include "io/files/files.hpp"

namespace switchyard {
namespace {

std::string text_of(const ProgressLine& p) {
    std::string text = fmt::format(
        "step {}/{}  loss {:.4f}  lr {:.2e}  |g| {:.2f}  {:.0f} tok/s  MFU {:.2f}  ETA {}", p.step, p.steps,
        p.loss, p.lr, p.grad_norm, p.tokens_per_s, p.mfu, duration_text(p.eta_s));
    if (std::isfinite(p.remaining_s))
        text += fmt::format(" of {} left{}", duration_text(p.remaining_s),
                            p.eta_s > p.remaining_s ? " (too short)" : "");
    if (p.evaluated) text += fmt::format("  val_loss {:.4f}", p.val_loss);
    return text;
}

int columns_of(int terminal) {
    winsize size{};
    return ioctl(terminal, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

int terminal_columns() {
    if (!isatty(STDOUT_FILENO)) return 0;
    if (!std::getenv("OMPI_COMM_WORLD_RANK")) return columns_of(STDOUT_FILENO);
    char name[256] = "";
    const std::string launcher = fmt::format("/proc/{}/fd/1", getppid());
    const auto length = readlink(launcher.c_str(), name, sizeof name - 1);
    const std::string_view device(name, length > 0 ? static_cast<std::size_t>(length) : 0);
    if (!device.starts_with("/dev/pts/") && !device.starts_with("/dev/tty")) return 0;
    return columns_of(FileDescriptor(open(name, O_RDONLY | O_NOCTTY | O_CLOEXEC)));
}

Progress::Progress(std::int64_t log_interval) : log_interval_(log_interval), live_(terminal_columns() > 0) {}

Progress::~Progress() {
    clear();
}

void Progress::clear() {
    if (!shown_) return;
    show_progress("\r\033[K");
    shown_ = false;
}

void Progress::line(const std::string& text) {
    clear();
    show_progress(printable(text) + "\n");
}

void Progress::end_line() {
    if (shown_) show_progress("\n");
    shown_ = false;
}

void Progress::step(const ProgressLine& p) {
    if (p.evaluated || p.step == p.steps || (!live_ && p.step % log_interval_ == 0)) return line(text_of(p));
    if (!live_ || seconds_now() - last_s_ < 0.1) return;
    last_s_ = seconds_now();
    // A line that wrapped could not be erased.
    const auto width = static_cast<std::size_t>(std::max(2, terminal_columns()));
    show_progress("\r\033[K" + text_of(p).substr(0, width - 1));
    shown_ = true;
}

}  // namespace switchyard
