// What the program prints. The result of a command goes to standard output and must arrive; progress and
// complaints must not end anything where nobody can hear them. Nothing else writes to standard error.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string_view>

#include "core/printable.hpp"

namespace switchyard {

/// At the start of the process, before a file is opened: a standard stream that is closed gets a descriptor
/// that cannot be used, so that no file of ours takes its number and messages with it; and a reader that went
/// away is an error of the write, not the end of the process.
void prepare_standard_streams();

/// `text` as it is on standard error or output, flushed. A failure changes nothing.
void show_error(std::string_view text) noexcept;
void show_progress(std::string_view text) noexcept;

/// A line on standard error, printable. Cannot fail.
template <class... Args>
void print_error(fmt::format_string<Args...> text, Args&&... args) noexcept try {
    show_error(printable(fmt::format(text, std::forward<Args>(args)...)) + "\n");
} catch (const std::exception&) {  // out of memory: what is being reported matters more
}

/// Result of a command, as it is, on standard output. Throws UserError where that cannot be written.
void write_result(std::string_view text);
/// Text that may come from anyone: as it is into files and pipes, printable on a terminal.
void write_text_result(std::string_view text);
/// Lines that tell what a file holds: printable.
template <class... Args>
void print_result(fmt::format_string<Args...> text, Args&&... args) {
    write_result(printable(fmt::format(text, std::forward<Args>(args)...)));
}
/// At the end of a command: what write_result() left in a buffer goes out. Throws as that does.
void flush_results();

}  // namespace switchyard
