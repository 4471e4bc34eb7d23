// Everything is written with fwrite, because fmt::print throws when a stream cannot be written.
#include "core/output.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "core/error.hpp"

namespace switchyard {
namespace {

bool write_to(std::FILE* stream, std::string_view text) noexcept {
    return std::fwrite(text.data(), 1, text.size(), stream) == text.size();
}

bool results_pending = false;  // in the buffer of standard output
bool reader_left = false;      // the pipe behind standard output is closed

void require_written(bool written) {
    if (written) return;
    reader_left = errno == EPIPE;
    require(reader_left,
            "cannot write to standard output: {} (what was asked for is incomplete); free space, or send it "
            "elsewhere",
            system_reason);
}

}  // namespace

void prepare_standard_streams() {
    // Opened for the direction in which nobody uses it. open() takes the lowest free number, which is the
    // stream's.
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::fcntl(stream, F_GETFD) < 0)
            (void)!::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    std::signal(SIGPIPE, SIG_IGN);
}

void show_error(std::string_view text) noexcept {
    write_to(stderr, text);
    std::fflush(stderr);
}

void show_progress(std::string_view text) noexcept {
    write_to(stdout, text);
    std::fflush(stdout);
}

bool result_is_wanted() {
    return !reader_left;
}

void write_result(std::string_view text) {
    if (reader_left) return;
    results_pending = true;
    require_written(write_to(stdout, text));
}

void write_text_result(std::string_view text) {
    if (::isatty(STDOUT_FILENO))
        write_result(printable(text));
    else
        write_result(text);
}

void flush_results() {
    if (!results_pending) return;
    results_pending = false;
    require_written(std::fflush(stdout) == 0);
}

}  // namespace switchyard
