// Comm: a communicator and its owner. With size 1 every collective does nothing, so serial code needs no
// branch of its own.
#pragma once

// The C++ bindings were removed from MPI 3.0; their headers warn and cost compile time.
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <memory>
#include <source_location>

namespace switchyard {

/// Throws InternalError naming the call and its place if an MPI function does not return MPI_SUCCESS.
void check_mpi(int code, const char* call, std::source_location = std::source_location::current());
#define SWITCHYARD_MPI(call) ::switchyard::check_mpi((call), #call)

class Comm {
  public:
    /// A single process without MPI.
    Comm() = default;
    /// Owns a duplicate of `source` (collective).
    static Comm duplicate(MPI_Comm source);
    /// Ranks and sizes without processes, for `plan`. Unless the size is 1, a collective on it is an internal
    /// error.
    static Comm imaginary(int rank, int size);
    /// Collective over this communicator.
    Comm split(int color, int key) const;
    /// Splits into nodes: the ranks of this communicator that share memory with this one (collective).
    Comm split_by_node() const;

    int rank() const { return rank_; }
    int size() const { return size_; }
    /// MPI_COMM_SELF for a single process without a communicator of its own.
    MPI_Comm handle() const;

  private:
    /// Takes over `created`, which only this object frees.
    static Comm own(MPI_Comm created);

    std::shared_ptr<MPI_Comm> handle_;
    int rank_ = 0, size_ = 1;
};

/// Calls MPI_Init_thread(FUNNELED) and MPI_Finalize if they are needed. The destructor does not finalize
/// while an exception unwinds, because a lone rank would wait there for ever; main() aborts instead.
class MpiSession {
  public:
    /// Without `needed`, MPI is started only in a process that is one of several (comm/launcher.hpp).
    MpiSession(int& argc, char**& argv, bool needed = true);
    ~MpiSession();
    /// All ranks; a single process if MPI was not started.
    Comm world() const;
    MpiSession(const MpiSession&) = delete;
    MpiSession& operator=(const MpiSession&) = delete;

  private:
    bool started_ = false;
    int exceptions_at_start_ = 0;
};

/// "yes", "no" or "unknown": whether MPI accepts pointers into GPU memory, as the library reports.
const char* gpu_awareness();

/// Ends every process of the job with status 1, whatever it waits for. Uses no communicator of ours.
[[noreturn]] void abort_job();

}  // namespace switchyard
