// Errors: require() for what a user, a file or the environment got wrong; internal_check() for our own
// invariants. Messages read: problem (why it matters); what to do, with the numbers involved.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace switchyard {

/// An error that the user can mend: bad input, missing file, ranks that do not fit, full disk, loss that is
/// not finite.
class UserError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// An error on which all ranks agreed and which all of them throw.
class AgreedError : public UserError {
  public:
    using UserError::UserError;
};

/// The numbers of a run are no longer finite. The trainer, which knows the checkpoints, adds what to do about
/// it.
class NotFinite : public AgreedError {
  public:
    using AgreedError::AgreedError;
};

/// A broken invariant of the program itself.
class InternalError : public std::logic_error {
  public:
    using std::logic_error::logic_error;
};

/// Stands in a message for the reason why the last system call failed. It is evaluated when the message is
/// formatted, so the call itself may stand in require()'s condition (arguments are evaluated in any order).
struct SystemReason {};
inline constexpr SystemReason system_reason;
/// The same reason in brackets with what to do about it: "cannot open `x` (Permission denied); check ...".
struct SystemProblem {};
inline constexpr SystemProblem system_problem;
/// What a user can do about an error number of a system call on a file.
std::string_view system_advice(int error);
/// "problem (why)" of a message "problem (why); what to do", for a message around it with advice of its own.
std::string_view without_advice(std::string_view message);

/// Throws UserError with the formatted message unless `condition` holds. Use AgreedError when the condition
/// is the result of a collective over all ranks.
template <class Error = UserError, class... Args>
void require(bool condition, fmt::format_string<Args...> message, Args&&... args) {
    if (!condition) throw Error(fmt::format(message, std::forward<Args>(args)...));
}

template <class Error = UserError, class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> message, Args&&... args) {
    throw Error(fmt::format(message, std::forward<Args>(args)...));
}

/// Throws InternalError unless `condition` holds. For invariants of the program, never for input.
template <class... Args>
void internal_check(bool condition, fmt::format_string<Args...> message, Args&&... args) {
    if (condition) return;
    throw InternalError(fmt::format("internal error: {}", fmt::format(message, std::forward<Args>(args)...)));
}

}  // namespace switchyard

template <>
struct fmt::formatter<switchyard::SystemReason> : fmt::formatter<fmt::string_view> {
    auto format(switchyard::SystemReason, fmt::format_context& context) const {
        return fmt::formatter<fmt::string_view>::format(std::strerror(errno), context);
    }
};

template <>
struct fmt::formatter<switchyard::SystemProblem> : fmt::formatter<fmt::string_view> {
    auto format(switchyard::SystemProblem, fmt::format_context& context) const {
        const int error = errno;
        return fmt::format_to(context.out(), "({}); {}", std::strerror(error),
                              switchyard::system_advice(error));
    }
};
