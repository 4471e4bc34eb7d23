// The MPI library that the program runs with. May be called before MPI starts.
#pragma once

#include <string>

namespace switchyard {

/// Name and version in the library's own words (the first line of them): "MPICH Version: 4.0.2".
std::string mpi_library();

}  // namespace switchyard
