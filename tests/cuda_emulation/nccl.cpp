// NCCL over MPI. An operation happens when its stream comes to it, and then waits for the other ranks, as
// NCCL's kernels do. Ranks first tell each other what they are about to do: where NCCL would hang or mix up
// bytes, the process ends with a sentence. Ranks connect at their first call of each kind, as they do by
// default since NCCL 2.22; the host waits for it.
#include <nccl.h>
#include <sched.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "comm/comm.hpp"
#include "core/bf16.hpp"
#include "fibers.hpp"
#include "host_mpi.hpp"
#include "stream_log.hpp"

struct EmulatedNccl {
    MPI_Comm comm = MPI_COMM_NULL;
    int rank = 0, size = 0;
    std::uint64_t operations = 0;
    bool aborted = false;
    bool connected[3] = {}, others_wait = false;
};

namespace {

using emulation::Where;

ncclResult_t failure = ncclSuccess;
const std::thread::id main_thread = std::this_thread::get_id();

std::size_t size_of(ncclDataType_t type) {
    return type == ncclUint8 ? 1 : type == ncclBfloat16 ? 2 : type == ncclFloat32 ? 4 : 8;
}

double patience_s() {
    const char* text = std::getenv("CUDA_EMULATION_PATIENCE");
    return text ? std::atof(text) : 120;
}

/// Where CUDA_EMULATION_NCCL_FAILS=RANK:WHEN makes this rank of a communicator fail.
bool fails(int rank, const char* when) {
    const char* text = std::getenv("CUDA_EMULATION_NCCL_FAILS");
    return text && text == std::to_string(rank) + (*when ? ":" : "") + when;
}

enum Kind : int { group, all_gather, all_reduce };
const char* const names[] = {"a group of sends and receives", "ncclAllGather", "ncclAllReduce"};

/// What a rank is about to do, for one of the others.
struct Intent {
    std::uint64_t number = 0;  // of the operation, among those of its communicator
    int kind = group, type = ncclUint8;
    std::uint64_t count = 0, expected = 0;  // elements; in a group the bytes sent to the other, and from it

    bool fits(const Intent& other) const {
        if (kind != other.kind) return false;
        if (kind == group) return count == other.expected && expected == other.count;
        return count == other.count && type == other.type;
    }
};
struct Partner {
    int rank = 0;
    Intent mine, other;
};

using Count = unsigned long long;

[[noreturn]] void report(const EmulatedNccl& comm, const Partner& p) {
    const Intent &mine = p.mine, &other = p.other;
    if (mine.kind == group && other.kind == group)
        emulation::error(
            Where::current(),
            "rank %d sends %llu bytes to rank %d, which receives %llu, and receives %llu of %llu", comm.rank,
            Count{mine.count}, p.rank, Count{other.expected}, Count{mine.expected}, Count{other.count});
    emulation::error(
        Where::current(),
        "ranks of a communicator call collectives in different order: operation %llu is %s of %llu elements "
        "of type %d on rank %d, and operation %llu is %s of %llu elements of type %d on rank %d",
        Count{mine.number}, names[mine.kind], Count{mine.count}, mine.type, comm.rank, Count{other.number},
        names[other.kind], Count{other.count}, other.type, p.rank);
}

/// Ends the process unless all partners are about to do what fits.
void agree(EmulatedNccl& comm, std::vector<Partner> partners) {
    if (std::this_thread::get_id() != main_thread)
        emulation::error(Where::current(), "NCCL runs on a thread that may not call MPI");
    constexpr int tag = 1, bytes = sizeof(Intent);
    std::vector<MPI_Request> requests(2 * partners.size(), MPI_REQUEST_NULL);
    for (std::size_t i = 0; i < partners.size(); ++i) {
        Partner& p = partners[i];
        p.mine.number = comm.operations;
        PMPI_Irecv(&p.other, bytes, MPI_BYTE, p.rank, tag, comm.comm, &requests[2 * i]);
        PMPI_Isend(&p.mine, bytes, MPI_BYTE, p.rank, tag, comm.comm, &requests[2 * i + 1]);
    }
    ++comm.operations;
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience_s());
    const int count = static_cast<int>(requests.size());
    for (int done = 0; PMPI_Testall(count, requests.data(), &done, MPI_STATUSES_IGNORE), !done;
         ::sched_yield())
        if (std::chrono::steady_clock::now() > end)
            emulation::error(
                Where::current(),
                "rank %d of %d waits in %s, operation %llu of its communicator, and others do not come: they "
                "call collectives in another order, or not at all",
                comm.rank, comm.size, names[partners[0].mine.kind], Count{partners[0].mine.number});
    for (const Partner& p : partners)
        if (!p.mine.fits(p.other)) report(comm, p);
}

void agree_with_all(EmulatedNccl& comm, Kind kind, std::size_t count, ncclDataType_t type) {
    std::vector<Partner> partners;
    for (int p = 0; p < comm.size; ++p)
        if (p != comm.rank) partners.push_back({p, {0, kind, type, count, 0}, {}});
    agree(comm, partners);
}

void require_device_memory(const void* start, std::size_t bytes, const char* call) {
    if (bytes > 0 && !emulation::is_device_memory(start, bytes))
        emulation::error(Where::current(), "%s of %zu bytes that do not lie in device memory", call, bytes);
    if (bytes > static_cast<std::size_t>(std::numeric_limits<int>::max()))
        emulation::error(Where::current(), "%s of %zu bytes, more than the emulation moves at once", call,
                         bytes);
}

/// At the first call of a kind. A rank that fails there leaves the others waiting until it gives up its
/// communicator.
ncclResult_t connect(EmulatedNccl& comm, Kind kind) {
    if (comm.others_wait) return ncclSystemError;
    if (std::exchange(comm.connected[kind], true) || comm.size == 1) return ncclSuccess;
    const char* const words[] = {"group", "gather", "sum"};
    comm.others_wait = fails(comm.rank, words[kind]);
    if (comm.others_wait) return ncclSystemError;
    int good = 1;
    PMPI_Allreduce(MPI_IN_PLACE, &good, 1, MPI_INT, MPI_MIN, comm.comm);
    return good ? ncclSuccess : ncclRemoteError;
}

void enqueue(ncclComm_t comm, cudaStream_t stream, Kind kind, std::function<void()> work) {
    ++emulation::nccl_work_waiting;
    emulation::enqueue_work(stream, names[kind], [comm, work = std::move(work)] {
        --emulation::nccl_work_waiting;
        if (!comm->aborted) work();
    });
}

// ---- Sends and receives.

struct Transfer {
    bool sends;
    void* data;
    std::size_t bytes;
    int peer;
    ncclComm_t comm;
    cudaStream_t stream;
};
int open_groups = 0;
std::vector<Transfer> transfers;

void run_group(EmulatedNccl& comm, const std::vector<Transfer>& all) {
    std::vector<Partner> partners;
    for (int p = 0; p < comm.size; ++p) {
        Partner partner{p, {}, {}};
        for (const Transfer& t : all)
            if (t.peer == p) (t.sends ? partner.mine.count : partner.mine.expected) += t.bytes;
        if (partner.mine.count + partner.mine.expected > 0) partners.push_back(partner);
    }
    if (!partners.empty()) agree(comm, partners);
    std::vector<MPI_Request> requests;
    for (const Transfer& t : all) {
        require_device_memory(t.data, t.bytes, t.sends ? "ncclSend" : "ncclRecv");
        const int bytes = static_cast<int>(t.bytes);
        requests.push_back(MPI_REQUEST_NULL);
        if (t.sends)
            PMPI_Isend(t.data, bytes, MPI_BYTE, t.peer, 0, comm.comm, &requests.back());
        else
            PMPI_Irecv(t.data, bytes, MPI_BYTE, t.peer, 0, comm.comm, &requests.back());
    }
    PMPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

/// Adds the transfers of the ended group to their streams.
ncclResult_t close_group() {
    while (!transfers.empty()) {
        const Transfer first = transfers.front();
        std::vector<Transfer> together, rest;
        for (const Transfer& t : transfers)
            (t.comm == first.comm && t.stream == first.stream ? together : rest).push_back(t);
        transfers = rest;
        if (const ncclResult_t code = connect(*first.comm, group); code != ncclSuccess) return code;
        enqueue(first.comm, first.stream, group,
                [comm = first.comm, together] { run_group(*comm, together); });
    }
    return ncclSuccess;
}

ncclResult_t add(const Transfer& transfer) {
    if (!transfer.comm || transfer.peer < 0 || transfer.peer >= transfer.comm->size)
        return ncclInvalidArgument;
    transfers.push_back(transfer);
    return open_groups == 0 ? close_group() : ncclSuccess;
}

// ---- Sums, in the order of the ranks from the last to the first; bf16 is rounded after each addition.

template <class T>
void add_backwards(const std::vector<unsigned char>& all, int ranks, std::size_t count, void* sums) {
    const auto* values = reinterpret_cast<const T*>(all.data());
    for (std::size_t i = 0; i < count; ++i) {
        T total = values[static_cast<std::size_t>(ranks - 1) * count + i];
        for (int p = ranks - 2; p >= 0; --p) {
            const T next = values[static_cast<std::size_t>(p) * count + i];
            if constexpr (std::is_same_v<T, switchyard::bf16>)
                total = switchyard::to_bf16(switchyard::to_f32(total) + switchyard::to_f32(next));
            else
                total += next;
        }
        static_cast<T*>(sums)[i] = total;
    }
}

void run_all_reduce(EmulatedNccl& comm, const void* values, void* sums, std::size_t count,
                    ncclDataType_t type) {
    agree_with_all(comm, all_reduce, count, type);
    const std::size_t bytes = count * size_of(type);
    require_device_memory(values, bytes, "ncclAllReduce");
    require_device_memory(sums, bytes, "ncclAllReduce");
    std::vector<unsigned char> all(bytes * static_cast<std::size_t>(comm.size));
    const int length = static_cast<int>(bytes);
    PMPI_Allgather(values, length, MPI_BYTE, all.data(), length, MPI_BYTE, comm.comm);
    if (type == ncclFloat32) add_backwards<float>(all, comm.size, count, sums);
    if (type == ncclFloat64) add_backwards<double>(all, comm.size, count, sums);
    if (type == ncclBfloat16) add_backwards<switchyard::bf16>(all, comm.size, count, sums);
}

void run_all_gather(EmulatedNccl& comm, const void* mine, void* all, std::size_t count, ncclDataType_t type) {
    agree_with_all(comm, all_gather, count, type);
    const std::size_t bytes = count * size_of(type);
    require_device_memory(mine, bytes, "ncclAllGather");
    require_device_memory(all, bytes * static_cast<std::size_t>(comm.size), "ncclAllGather");
    auto *const first = static_cast<unsigned char*>(all), *const place =
                                                              first +
                                                              bytes * static_cast<std::size_t>(comm.rank);
    const auto* from = static_cast<const unsigned char*>(mine);
    if (from != place && from < first + bytes * static_cast<std::size_t>(comm.size) && first < from + bytes)
        emulation::error(Where::current(),
                         "ncclAllGather: rank %d sends a part of the result that is not its own", comm.rank);
    const int length = static_cast<int>(bytes);
    PMPI_Allgather(from == place ? MPI_IN_PLACE : mine, length, MPI_BYTE, all, length, MPI_BYTE, comm.comm);
}

}  // namespace

namespace emulation {

void report_nccl_failure(ncclResult_t code) {
    failure = code;
}

}  // namespace emulation

const char* ncclGetErrorString(ncclResult_t code) {
    switch (code) {
        case ncclSuccess:
            return "no error";
        case ncclUnhandledCudaError:
            return "unhandled cuda error";
        case ncclSystemError:
            return "unhandled system error";
        case ncclInvalidArgument:
            return "invalid argument";
        case ncclInvalidUsage:
            return "invalid usage";
        case ncclRemoteError:
            return "remote process exited or there was a network error";
        default:
            return "NCCL operation in progress";
    }
}

ncclResult_t ncclGetVersion(int* version) {
    *version = 22800;
    return ncclSuccess;
}

/// The number of the asking process in MPI_COMM_WORLD, and how many it has asked for.
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    static int asked = 0;
    int numbers[2] = {0, asked++};
    PMPI_Comm_rank(MPI_COMM_WORLD, &numbers[0]);
    *id = {};
    std::memcpy(id->internal, numbers, sizeof numbers);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* created, int ranks, ncclUniqueId id, int rank) {
    if (!created || ranks < 1 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
    if (fails(rank, "early")) return ncclSystemError;  // and the others wait for ever
    int numbers[2];
    std::memcpy(numbers, id.internal, sizeof numbers);
    const auto [root, asked] = std::pair(numbers[0], numbers[1]);
    // The root collects who and where the ranks are, and tells all.
    struct Member {
        int world = 0, device = 0;
    };
    const int tag = 20000 + asked % 10000;
    Member me;
    PMPI_Comm_rank(MPI_COMM_WORLD, &me.world);
    cudaGetDevice(&me.device);
    std::vector<Member> members(static_cast<std::size_t>(ranks), me);
    const int bytes = static_cast<int>(members.size() * sizeof me);
    if (me.world == root) {
        for (int i = 1; i < ranks; ++i) {
            int other = 0;
            MPI_Status status;
            PMPI_Recv(&other, 1, MPI_INT, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &status);
            PMPI_Recv(&members[static_cast<std::size_t>(other)], sizeof me, MPI_BYTE, status.MPI_SOURCE, tag,
                      MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        }
        for (const Member& member : members)
            if (member.world != root)
                PMPI_Send(members.data(), bytes, MPI_BYTE, member.world, tag, MPI_COMM_WORLD);
    } else {
        PMPI_Send(&rank, 1, MPI_INT, root, tag, MPI_COMM_WORLD);
        PMPI_Send(&me, sizeof me, MPI_BYTE, root, tag, MPI_COMM_WORLD);
        PMPI_Recv(members.data(), bytes, MPI_BYTE, root, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    std::vector<int> world_ranks;
    for (const Member& member : members) {
        for (const Member& other : members)
            if (&other != &member && other.device == member.device) return ncclInvalidUsage;
        world_ranks.push_back(member.world);
    }
    MPI_Group world, group_of_members;
    PMPI_Comm_group(MPI_COMM_WORLD, &world);
    PMPI_Group_incl(world, ranks, world_ranks.data(), &group_of_members);
    auto* comm = new EmulatedNccl{MPI_COMM_NULL, rank, ranks};
    PMPI_Comm_create_group(MPI_COMM_WORLD, group_of_members, tag, &comm->comm);
    PMPI_Group_free(&group_of_members);
    PMPI_Group_free(&world);
    if (fails(rank, "")) {
        delete comm;
        return ncclSystemError;
    }
    *created = comm;
    return ncclSuccess;
}

/// The communicators of MPI below stay: this may be called while MPI frees another one.
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    cudaDeviceSynchronize();
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    int good = 0;
    if (std::exchange(comm->others_wait, false))
        PMPI_Allreduce(MPI_IN_PLACE, &good, 1, MPI_INT, MPI_MIN, comm->comm);
    comm->aborted = true;  // and stays: streams may hold operations of it
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* code) {
    *code = failure;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
    ++open_groups;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    if (open_groups == 0) return ncclInvalidUsage;
    return --open_groups == 0 ? close_group() : ncclSuccess;
}

ncclResult_t ncclSend(const void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return add({true, const_cast<void*>(data), count * size_of(type), peer, comm, stream});
}

ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return add({false, data, count * size_of(type), peer, comm, stream});
}

ncclResult_t ncclAllGather(const void* mine, void* all, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
    if (!comm) return ncclInvalidArgument;
    if (const ncclResult_t code = connect(*comm, all_gather); code != ncclSuccess) return code;
    enqueue(comm, stream, all_gather, [=] { run_all_gather(*comm, mine, all, count, type); });
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* values, void* sums, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t, ncclComm_t comm, cudaStream_t stream) {
    if (!comm || type == ncclUint8) return ncclInvalidArgument;
    if (const ncclResult_t code = connect(*comm, all_reduce); code != ncclSuccess) return code;
    enqueue(comm, stream, all_reduce, [=] { run_all_reduce(*comm, values, sums, count, type); });
    return ncclSuccess;
}
