// Lines are written whole and flushed, so that launchers that merge ranks do not tear them.
#include "train/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/timer.hpp"
#include "train/figures.hpp"

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

}  // namespace

bool output_is_terminal() {
    if (!isatty(STDOUT_FILENO)) return false;
    if (!std::getenv("OMPI_COMM_WORLD_RANK")) return true;
    char target[256] = "";
    const std::string launcher = fmt::format("/proc/{}/fd/1", getppid());
    const auto length = readlink(launcher.c_str(), target, sizeof target - 1);
    const std::string_view name(target, length > 0 ? static_cast<std::size_t>(length) : 0);
    return name.substr(0, 9) == "/dev/pts/" || name.substr(0, 8) == "/dev/tty";
}

Progress::Progress(std::int64_t log_interval) : log_interval_(log_interval), live_(output_is_terminal()) {}

Progress::~Progress() {
    clear();
}

void Progress::clear() {
    if (!shown_) return;
    fmt::print("\r\033[K");
    std::fflush(stdout);
    shown_ = false;
}

void Progress::line(const std::string& text) {
    clear();
    fmt::print("{}\n", text);
    std::fflush(stdout);
}

void Progress::step(const ProgressLine& p) {
    if (p.evaluated || p.step == p.steps || (!live_ && p.step % log_interval_ == 0)) return line(text_of(p));
    if (!live_ || seconds_now() - last_s_ < 0.1) return;
    last_s_ = seconds_now();
    fmt::print("\r\033[K{}", text_of(p));
    std::fflush(stdout);
    shown_ = true;
}

}  // namespace switchyard
