// ProgressLine: shows the progress of tokenize. Private to io/.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>

#include "core/output.hpp"

namespace switchyard {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// On standard error: one live line on a terminal, otherwise a line every five seconds.
class ProgressLine {
  public:
    ProgressLine(bool show, std::uint64_t total)
        : show_(show), live_(::isatty(STDERR_FILENO) == 1), total_(total), next_(interval()) {}

    void update(std::uint64_t bytes, std::int64_t tokens, bool last = false) {
        const double elapsed = seconds_since(start_);
        if (!show_ || (!last && elapsed < next_)) return;
        next_ = elapsed + interval();
        const double megabytes = static_cast<double>(bytes) * 1e-6;
        const std::string share =
            total_ > 0
                ? fmt::format(" ({:.0f} %)", 100.0 * static_cast<double>(bytes) / static_cast<double>(total_))
                : "";
        show_error(fmt::format("{}tokenize: {:.1f} MB{}, {:.2f} M tokens, {:.1f} MB/s{}", live_ ? "\r" : "",
                               megabytes, share, static_cast<double>(tokens) * 1e-6,
                               megabytes / std::max(elapsed, 1e-9), live_ && !last ? "  " : "\n"));
    }
    void note(const std::string& text) const {
        if (show_) print_error("tokenize: {}", text);
    }

  private:
    double interval() const { return live_ ? 0.2 : 5.0; }

    bool show_, live_;
    std::uint64_t total_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    double next_;
};

}  // namespace switchyard
