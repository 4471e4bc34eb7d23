// What the launcher (mpirun, srun, ...) says about this process before MPI starts: login nodes of some
// centres refuse MPI_Init, and most commands need no MPI.
#pragma once

#include <functional>

namespace switchyard {

/// Value of an environment variable or nullptr, as std::getenv.
using Environment = std::function<const char*(const char*)>;

/// How many processes mpirun started together, by its own word; 0: it did not say.
int ranks_of_mpirun(const Environment&);

/// Whether this process is one of several that a launcher started together. A launcher that says that it is
/// one, but not of how many, may have started several.
bool started_as_one_of_several(const Environment&);

/// Whether a launcher started this process at all.
bool started_by_launcher(const Environment&);

}  // namespace switchyard
