// What the launcher (mpirun, srun, ...) tells about this process before MPI starts. Login nodes of some
// centres refuse MPI_Init, and most commands need no MPI.
#pragma once

#include <functional>

namespace switchyard {

/// Returns the value of an environment variable or nullptr, like std::getenv.
using Environment = std::function<const char*(const char*)>;

/// The number of processes that mpirun started together; 0 if it does not tell.
int ranks_of_mpirun(const Environment&);

/// True if this process is one of several that a launcher started together. A launcher that does not tell the
/// number may have started several.
bool started_as_one_of_several(const Environment&);

/// True if a launcher started this process.
bool started_by_launcher(const Environment&);

}  // namespace switchyard
