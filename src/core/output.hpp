// What the program prints. The result of a command goes to standard output and must arrive; progress and
// complaints must not end anything where nobody can hear them. Nothing else writes to standard error.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string_view>

namespace switchyard {

/// `text` as it is on standard error or output, flushed. A failure changes nothing.
void show_error(std::string_view text) noexcept;
void show_progress(std::string_view text) noexcept;

/// A line on standard error. Cannot fail.
template <class... Args>
void print_error(fmt::format_string<Args...> text, Args&&... args) noexcept try {
    show_error(fmt::format(text, std::forward<Args>(args)...) + "\n");
} catch (const std::exception&) {  // out of memory: what is being reported matters more
}

/// Result of a command, as it is, on standard output. Throws UserError where that cannot be written.
void write_result(std::string_view text);
template <class... Args>
void print_result(fmt::format_string<Args...> text, Args&&... args) {
    write_result(fmt::format(text, std::forward<Args>(args)...));
}
/// At the end of a command: what write_result() left in a buffer goes out. Throws as that does.
void flush_results();

}  // namespace switchyard
