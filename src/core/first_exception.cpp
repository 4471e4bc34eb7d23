// The failure that tests plant. Its message is set before its flag.
#include "core/first_exception.hpp"

#include "core/error.hpp"

namespace switchyard {
namespace {

std::string planted_message;

}  // namespace

namespace detail {

std::atomic<bool> failure_planted{false};

void throw_planted_failure() {
    throw UserError(planted_message);
}

}  // namespace detail

void plant_failure(const std::string& message) {
    planted_message = message;
    detail::failure_planted = true;
}

}  // namespace switchyard
