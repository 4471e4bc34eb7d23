// How a run dies: one message from the lowest rank that failed, then every rank ends.
#pragma once

#include <exception>
#include <string>

#include "core/error.hpp"

namespace switchyard {

/// An error that all ranks met is reported by the lowest: higher ranks wait here, a little longer each, to be
/// ended by it. Whoever returns is the one to speak. At once on rank 0; elsewhere after at most 4 s, but
/// after a minute where rank 0 is known to have the same error. Signals that end a process do so again from
/// here on.
void wait_for_lower_ranks(int rank, const std::exception& error);

/// what(), or a sentence where that says nothing.
std::string message_of(const std::exception&);

/// An internal error that all ranks throw together, after they agreed on it (AgreedError is the user's).
class AgreedInternalError : public InternalError {
  public:
    using InternalError::InternalError;
};

/// "[rank r] message" on standard error, then MPI_Abort with status 1.
[[noreturn]] void abort_all_ranks(int rank, const std::string& message);

}  // namespace switchyard
