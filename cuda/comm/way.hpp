// The way that the collectives of a communicator take.
#pragma once

#include "cuda/comm/transport.hpp"

namespace switchyard::cuda {

/// Collective when it is first asked about a communicator of at least two ranks. Ends with the communicator.
Transport& transport_of(const Comm&);

}  // namespace switchyard::cuda
