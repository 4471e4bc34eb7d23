// Which MPI library the program runs with. Callable before MPI starts.
#pragma once

#include <string>

namespace switchyard {

/// Name and version as the library gives them, the first line of it: "MPICH Version: 4.0.2".
std::string mpi_library();

}  // namespace switchyard
