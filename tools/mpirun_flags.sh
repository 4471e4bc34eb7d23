#!/usr/bin/env bash
# mpi_run RANKS COMMAND...: mpirun with what a workstation or a container needs. Sourced, never called by itself.
# On a cluster use the site's launcher instead (srun, or mpirun inside the job). SWITCHYARD_MPIRUN names another mpirun than
# the first in PATH, where several MPI libraries are installed: it must be that of the library the program was built with.

# Sets the array mpi_command. Run it as "${mpi_command[@]}" COMMAND: the process is mpirun itself, so signals reach it.
mpi_prepare() {
    local ranks=$1 mpirun=${SWITCHYARD_MPIRUN:-mpirun} cores threads
    cores=$(nproc)
    threads=${OMP_NUM_THREADS:-$((cores > ranks ? cores / ranks : 1))}
    mpi_command=(env "OMP_NUM_THREADS=$threads")
    if "$mpirun" --version 2>/dev/null | grep -q 'Open MPI\|OpenRTE'; then
        # Without these two it refuses to run as root, which a container usually is.
        mpi_command+=(OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)
        # It counts cores, not hyper-threads, as slots; containers refuse binding and copies between processes.
        mpi_command+=("$mpirun" -n "$ranks" --oversubscribe --bind-to none --mca btl_vader_single_copy_mechanism none)
        # Ranks that wait must give up the core that others need.
        if [[ $ranks -gt $cores ]]; then mpi_command+=(--mca mpi_yield_when_idle 1); fi
    else
        # Hydra, the mpirun of MPICH and Intel MPI, allows all this.
        mpi_command+=("$mpirun" -n "$ranks")
    fi
}

mpi_run() {
    local ranks=$1
    shift
    mpi_prepare "$ranks"
    "${mpi_command[@]}" "$@"
}
