// What a device has to do with MPI, through MPI's profiling interface: while the host waits in a call of MPI,
// the device goes on with collectives of NCCL; and MPI reads and writes device memory if CUDA_EMULATION_MPI=1
// says that it can, else handing it device memory ends the process with a sentence.
#include "host_mpi.hpp"

#include <cuda_runtime.h>

#include <cstdlib>
#include <optional>

#include "comm/comm.hpp"
#include "device_memory.hpp"
#include "fibers.hpp"

int emulation::nccl_work_waiting = 0;

namespace {

void go_on() {
    if (emulation::nccl_work_waiting > 0) cudaDeviceSynchronize();
}

bool takes_device_memory() {
    static const bool yes = [] {
        const char* text = std::getenv("CUDA_EMULATION_MPI");
        return text && *text == '1';
    }();
    return yes;
}

/// Open while MPI may touch device memory.
struct Access {
    std::optional<emulation::OpenMemory> open;
    Access() {
        if (takes_device_memory()) open.emplace();
    }
    Access(const void* start, int bytes, const char* call) : Access() {
        if (!open && emulation::is_device_memory(start, static_cast<std::size_t>(bytes)))
            emulation::error(
                emulation::Where::current(),
                "%s of device memory, by an MPI library that does not take it (CUDA_EMULATION_MPI)", call);
    }
};

}  // namespace

extern "C" {  // weak: a test that counts these calls defines them itself

int MPIX_Query_cuda_support() {
    return takes_device_memory() ? 1 : 0;
}

int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
              MPI_Request* request) {
    const Access access(data, count, "MPI_Isend");
    return PMPI_Isend(data, count, type, to, tag, comm, request);
}
int MPI_Irecv(void* data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
              MPI_Request* request) {
    const Access access(data, count, "MPI_Irecv");
    return PMPI_Irecv(data, count, type, from, tag, comm, request);
}
int MPI_Waitall(int count, MPI_Request* requests, MPI_Status* statuses) {
    go_on();
    const Access access;
    return PMPI_Waitall(count, requests, statuses);
}
int MPI_Wait(MPI_Request* request, MPI_Status* status) {
    go_on();
    return PMPI_Wait(request, status);
}
int MPI_Barrier(MPI_Comm comm) {
    go_on();
    return PMPI_Barrier(comm);
}
[[gnu::weak]] int MPI_Bcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    go_on();
    return PMPI_Bcast(data, count, type, root, comm);
}
int MPI_Allreduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
    go_on();
    return PMPI_Allreduce(in, out, count, type, op, comm);
}
int MPI_Allgather(const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count,
                  MPI_Datatype out_type, MPI_Comm comm) {
    go_on();
    return PMPI_Allgather(in, in_count, in_type, out, out_count, out_type, comm);
}
int MPI_Gather(const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count,
               MPI_Datatype out_type, int root, MPI_Comm comm) {
    go_on();
    return PMPI_Gather(in, in_count, in_type, out, out_count, out_type, root, comm);
}
int MPI_Gatherv(const void* in, int in_count, MPI_Datatype in_type, void* out, const int* counts,
                const int* offsets, MPI_Datatype out_type, int root, MPI_Comm comm) {
    go_on();
    return PMPI_Gatherv(in, in_count, in_type, out, counts, offsets, out_type, root, comm);
}
int MPI_Comm_dup(MPI_Comm comm, MPI_Comm* created) {
    go_on();
    return PMPI_Comm_dup(comm, created);
}
int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm* created) {
    go_on();
    return PMPI_Comm_split(comm, color, key, created);
}
int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm* created) {
    go_on();
    return PMPI_Comm_split_type(comm, type, key, info, created);
}
int MPI_Comm_free(MPI_Comm* comm) {
    go_on();
    return PMPI_Comm_free(comm);
}
int MPI_Finalize() {
    go_on();
    return PMPI_Finalize();
}

}  // extern "C"
