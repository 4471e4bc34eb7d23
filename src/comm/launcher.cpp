// Names as documented by Open MPI, MPICH, Intel MPI, MVAPICH, Flux, PMIx, Cray PALS and Slurm. The innermost
// launcher counts: mpirun inside a Slurm step overrides Slurm.
#include "comm/launcher.hpp"

#include <algorithm>
#include <cstdlib>
#include <initializer_list>

namespace switchyard {
namespace {

bool any_set(const Environment& environment, std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(),
                       [&](const char* name) { return environment(name) != nullptr; });
}

}  // namespace

bool started_by_launcher(const Environment& environment) {
    return any_set(environment,
                   {"OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE", "PMI_RANK", "PMI_FD", "PALS_RANKID"});
}

int ranks_of_mpirun(const Environment& environment) {
    for (const char* size : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "FLUX_JOB_SIZE"})
        if (const char* value = environment(size)) return std::atoi(value);
    return 0;
}

bool started_as_one_of_several(const Environment& environment) {
    if (const int ranks = ranks_of_mpirun(environment)) return ranks > 1;
    // A batch script sees the variables of the job, a process under srun also those of its step.
    if (environment("SLURM_STEP_ID"))
        for (const char* size : {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"})
            if (const char* value = environment(size)) return std::atoi(value) > 1;
    return any_set(environment, {"PMIX_RANK", "PMIX_NAMESPACE", "PMI_RANK", "PMI_FD", "PALS_RANKID"});
}

}  // namespace switchyard
