// By fwrite: fmt::print throws where a stream cannot be written.
#include "core/output.hpp"

#include <cstdio>

#include "core/error.hpp"

namespace switchyard {
namespace {

bool write_to(std::FILE* stream, std::string_view text) noexcept {
    return std::fwrite(text.data(), 1, text.size(), stream) == text.size();
}

void require_written(bool written) {
    require(written,
            "cannot write to standard output: {} (what was asked for is incomplete); free space, or send it "
            "elsewhere",
            system_reason);
}

bool results_pending = false;  // in the buffer of standard output

}  // namespace

void show_error(std::string_view text) noexcept {
    write_to(stderr, text);
    std::fflush(stderr);
}

void show_progress(std::string_view text) noexcept {
    write_to(stdout, text);
    std::fflush(stdout);
}

void write_result(std::string_view text) {
    results_pending = true;
    require_written(write_to(stdout, text));
}

void flush_results() {
    if (!results_pending) return;
    results_pending = false;
    require_written(std::fflush(stdout) == 0);
}

}  // namespace switchyard
