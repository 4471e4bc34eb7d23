// Calls of the system and of MPI are intercepted: the definitions here come before those of the libraries.
// For a benchmark of one source file.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "comm/comm.hpp"
#include "core/timer.hpp"

namespace {

/// How this rank's time was spent, in s.
struct Times {
    double write = 0, sync = 0, messages = 0, all = 0;
    double rest() const { return all - write - sync - messages; }
};
Times spent;

struct Clock {
    explicit Clock(double& to) : total(to), start(switchyard::seconds_now()) {}
    ~Clock() { total += switchyard::seconds_now() - start; }
    double& total;
    double start;
};

}  // namespace

extern "C" {

ssize_t pwrite(int fd, const void* data, std::size_t bytes, off_t offset) {
    const Clock clock(spent.write);
    return ::syscall(SYS_pwrite64, fd, data, bytes, offset);
}

int fsync(int fd) {
    const Clock clock(spent.sync);
    return static_cast<int>(::syscall(SYS_fsync, fd));
}

int MPI_Barrier(MPI_Comm comm) {
    const Clock clock(spent.messages);
    return PMPI_Barrier(comm);
}

int MPI_Bcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    const Clock clock(spent.messages);
    return PMPI_Bcast(data, count, type, root, comm);
}

int MPI_Allgather(const void* send, int send_count, MPI_Datatype send_type, void* received, int count,
                  MPI_Datatype type, MPI_Comm comm) {
    const Clock clock(spent.messages);
    return PMPI_Allgather(send, send_count, send_type, received, count, type, comm);
}

int MPI_Allreduce(const void* send, void* received, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
    const Clock clock(spent.messages);
    return PMPI_Allreduce(send, received, count, type, op, comm);
}

int MPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[]) {
    const Clock clock(spent.messages);
    return PMPI_Waitall(count, requests, statuses);
}

}  // extern "C"
