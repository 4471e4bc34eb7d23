// How a run ends after an error: the lowest rank that failed prints one message, then every rank ends.
#pragma once

#include <exception>
#include <string>

#include "core/error.hpp"

namespace switchyard {

/// The lowest rank with an error reports it. Higher ranks wait here, a little longer each, to be ended by it;
/// a rank that returns must report. Rank 0 returns at once, others after at most 4 s, but after a minute if
/// rank 0 is known to have the same error. From here on, signals end the process again.
void wait_for_lower_ranks(int rank, const std::exception& error);

/// error.what(), or a sentence for errors whose text tells nothing.
std::string message_of(const std::exception&);

/// An internal error on which all ranks agreed and which all of them throw (AgreedError is the same for
/// UserError).
class AgreedInternalError : public InternalError {
  public:
    using InternalError::InternalError;
};

/// Prints "[rank r] message" on standard error, then calls MPI_Abort with status 1.
[[noreturn]] void abort_all_ranks(int rank, const std::string& message);

}  // namespace switchyard
