// What the program prints. The result of a command goes to standard output, and a result that is lost is an
// error, unless its reader closed the pipe. Progress and error messages that are lost end nothing. Nothing
// else writes to standard error.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string_view>

#include "core/printable.hpp"

namespace switchyard {

/// To be called at the start of the process, before any file is opened. A closed standard stream gets a
/// descriptor that cannot be used, so that no file of ours takes its number and receives our messages.
/// Writing to a closed pipe becomes an error of the write instead of a signal.
void prepare_standard_streams();

/// Writes `text` unchanged to standard error or standard output and flushes it. A failure has no effect.
void show_error(std::string_view text) noexcept;
void show_progress(std::string_view text) noexcept;

/// Prints one line on standard error, with unprintable characters escaped. Cannot fail.
template <class... Args>
void print_error(fmt::format_string<Args...> text, Args&&... args) noexcept try {
    show_error(printable(fmt::format(text, std::forward<Args>(args)...)) + "\n");
} catch (const std::exception&) {  // out of memory: what is being reported matters more
}

/// Writes part of a command's result, unchanged, to standard output. Throws UserError when that fails (full
/// disk, closed stream). After the reader has closed the pipe (`| head`) everything is dropped without an
/// error: the reader has what it wanted, and the exit code still says what the command found.
void write_result(std::string_view text);
/// False once the reader of standard output has closed the pipe. Commands without an end of their own stop
/// then.
bool result_is_wanted();
/// The same for text of unknown origin: unchanged into files and pipes, with unprintable characters escaped
/// on a terminal.
void write_text_result(std::string_view text);
/// The same for lines about the content of a file, with unprintable characters escaped.
template <class... Args>
void print_result(fmt::format_string<Args...> text, Args&&... args) {
    write_result(printable(fmt::format(text, std::forward<Args>(args)...)));
}
/// Writes what write_result() left in the buffer; to be called at the end of a command. Throws as that does.
void flush_results();

}  // namespace switchyard
