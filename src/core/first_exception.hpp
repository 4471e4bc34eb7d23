// An exception that leaves an OpenMP region ends the process without a message. FirstException keeps what the
// first thread threw until the region is over:
//
//     FirstException failure;
//     #pragma omp parallel for
//     for (...) failure.guard([&] { ... });
//     failure.rethrow();
//
// Loops have it from core/shared_loop.hpp. It serves on one thread as well, where work must go on for the
// sake of other ranks.
#pragma once

#include <atomic>
#include <exception>
#include <string>

namespace switchyard {

namespace detail {
extern std::atomic<bool> failure_planted;
[[noreturn]] void throw_planted_failure();
}  // namespace detail

class FirstException {
  public:
    /// Runs `work` and keeps what it throws. Does nothing after any thread has failed.
    template <class Work>
    void guard(Work&& work) noexcept {
        if (failed_.load(std::memory_order_relaxed)) return;
        try {
            if (detail::failure_planted.load(std::memory_order_relaxed) &&
                detail::failure_planted.exchange(false))
                detail::throw_planted_failure();
            work();
        } catch (...) {
            if (!failed_.exchange(true)) error_ = std::current_exception();
        }
    }
    /// Throws the exception that was kept, if there is one; to be called after the region.
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

  private:
    std::atomic<bool> failed_{false};
    std::exception_ptr error_;
};

/// For tests: makes the next guarded work of this process, on any thread, throw a UserError with this
/// message.
void plant_failure(const std::string& message);

}  // namespace switchyard
