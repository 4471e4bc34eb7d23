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

constexpr double draw_s = 0.1, line_s = 10;  // between draws of a live line, and lines of a batch log

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
    if (!live_ || seconds_now() - last_s_ < draw_s) return;
    last_s_ = seconds_now();
    draw(text_of(p));
}

void Progress::amount(const std::string& what, std::uint64_t done, std::uint64_t all, double now_s) {
    if (done >= all) {
        clear();
        last_amount_s_.reset();
        return;
    }
    const bool first = !last_amount_s_;
    if (!first && now_s - *last_amount_s_ < (live_ ? draw_s : line_s)) return;
    last_amount_s_ = now_s;
    const std::string text = fmt::format("{} of {} {} ({:.0f} %)", bytes_text(static_cast<double>(done)),
                                         bytes_text(static_cast<double>(all)), what,
                                         100 * static_cast<double>(done) / static_cast<double>(all));
    if (live_)
        draw(text);
    else if (!first)
        line(text);
}

/// The live line, cut to the terminal: one that wrapped could not be erased.
void Progress::draw(const std::string& text) {
    const auto width = static_cast<std::size_t>(std::max(2, terminal_columns()));
    show_progress("\r\033[K" + text.substr(0, width - 1));
    shown_ = true;
}

}  // namespace switchyard
