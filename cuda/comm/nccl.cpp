// Collectives by NCCL, on the communication stream: the host never waits. A sum sends each rank the values
// that it sums, adds them in rank order and gathers the results: what moves is what a ring moves, and the
// bits do not depend on what NCCL chooses. The ring's own sum is there by choice. Only compiled where NCCL
// was found.
#include "cuda/comm/nccl.hpp"

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <limits>
#include <source_location>
#include <thread>
#include <vector>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "cuda/comm/rank_sum.hpp"
#include "cuda/comm/stream_order.hpp"
#include "cuda/runtime.hpp"
#include "cuda/waiting.hpp"

namespace switchyard::cuda {
namespace {

void check_call(ncclResult_t code, const char* call, const std::source_location& where) {
    require(code == ncclSuccess,
            "NCCL: {}: {} ({}:{}); set NCCL_DEBUG=WARN to see why, or use parallel.collectives = staged",
            call, ncclGetErrorString(code), where.file_name(), where.line());
}
#define SWITCHYARD_NCCL(call) check_call((call), #call, std::source_location::current())

/// The communicators of this process. NCCL tells of failures elsewhere when it is asked; while one of them
/// has failed, what waits for a collective would wait for ever.
std::vector<ncclComm_t>& communicators() {
    static auto* const all = new std::vector<ncclComm_t>;
    return *all;
}

void throw_if_one_failed() {
    for (ncclComm_t communicator : communicators()) {
        ncclResult_t code = ncclSuccess;
        if (ncclCommGetAsyncError(communicator, &code) != ncclSuccess || code == ncclSuccess ||
            code == ncclInProgress)
            continue;
        for (ncclComm_t each : communicators()) ncclCommAbort(each);
        communicators().clear();
        fail(
            "NCCL reports an error in a collective under way: {} (another rank or the network failed; what "
            "was computed "
            "since the last step is lost); resume from the last checkpoint",
            ncclGetErrorString(code));
    }
}

ncclDataType_t type_of(DType dtype) {
    internal_check(dtype == DType::f32 || dtype == DType::f64 || dtype == DType::bf16, "sum over ranks of {}",
                   name_of(dtype));
    return dtype == DType::f32 ? ncclFloat32 : dtype == DType::f64 ? ncclFloat64 : ncclBfloat16;
}

/// Until the end of the scope, sends and receives are one operation: none waits for another.
class Group {
  public:
    Group() { SWITCHYARD_NCCL(ncclGroupStart()); }
    void end() { SWITCHYARD_NCCL(ncclGroupEnd()); }
};

class Nccl final : public Transport {
  public:
    Nccl(ncclComm_t communicator, SumOrder order) : communicator_(communicator), order_(order) {
        communicators().push_back(communicator);
        watch_while_waiting(throw_if_one_failed);
    }
    ~Nccl() override {
        const auto known = std::find(communicators().begin(), communicators().end(), communicator_);
        if (known == communicators().end()) return;  // aborted
        communicators().erase(known);
        ncclCommDestroy(communicator_);
    }
    Nccl(const Nccl&) = delete;
    Nccl& operator=(const Nccl&) = delete;

    std::string text() const override {
        return fmt::format("NCCL {}, sums in {}", nccl_version(),
                           order_ == SumOrder::rank ? "the order of ranks" : "NCCL's order");
    }

    Finish start_all_reduce(const Comm& comm, Tensor tensor, Tensor scratch) override {
        const ncclDataType_t type = type_of(tensor.dtype());
        follow_compute();
        if (order_ == SumOrder::library)
            SWITCHYARD_NCCL(ncclAllReduce(tensor.raw(), tensor.raw(), static_cast<std::size_t>(tensor.size()),
                                          type, ncclSum, communicator_, communication_stream()));
        else
            sum_in_order(comm, tensor, scratch);
        return continue_compute();
    }

    Finish start_exchange(const Comm& comm, std::span<const Tensor> send,
                          std::span<const Tensor> received) override {
        follow_compute();
        Group group;
        for (int p = 0; p < comm.size(); ++p) {
            if (p == comm.rank()) continue;
            this->send(send[p].raw(), send[p].bytes(), p);
            receive(received[p].raw(), received[p].bytes(), p);
        }
        group.end();
        return continue_compute();
    }

    Finish start_all_gather(const Comm&, Tensor mine, Tensor all) override {
        follow_compute();
        gather(mine.raw(), all.raw(), mine.bytes());
        return continue_compute();
    }

  private:
    static void follow_compute() { Mark(compute_stream()).hold(communication_stream()); }
    static Finish continue_compute() {
        return [done = std::make_shared<Mark>(communication_stream())] { done->hold(compute_stream()); };
    }

    void send(const void* data, std::size_t bytes, int to) {
        if (bytes > 0)
            SWITCHYARD_NCCL(ncclSend(data, bytes, ncclUint8, to, communicator_, communication_stream()));
    }
    void receive(void* data, std::size_t bytes, int from) {
        if (bytes > 0)
            SWITCHYARD_NCCL(ncclRecv(data, bytes, ncclUint8, from, communicator_, communication_stream()));
    }
    void gather(const void* mine, void* all, std::size_t bytes) {
        SWITCHYARD_NCCL(ncclAllGather(mine, all, bytes, ncclUint8, communicator_, communication_stream()));
    }

    /// NCCL gathers equal chunks. The last ones of a tensor may be shorter: then the sums are gathered in
    /// `scratch`, which has room for whole chunks, and copied.
    void sum_in_order(const Comm& comm, Tensor tensor, Tensor scratch) {
        const std::size_t element = size_of(tensor.dtype());
        const SumSegment segment =
            sum_segments(tensor.size(), element, comm.size(), std::numeric_limits<std::int64_t>::max())
                .front();
        const int ranks = comm.size(), rank = comm.rank();
        const std::size_t chunk = static_cast<std::size_t>(segment.chunk) * element;
        auto *const values = tensor.data<std::byte>(), *const others = scratch.data<std::byte>();
        const auto bytes_of = [&](int p) { return static_cast<std::size_t>(segment.counts[p]) * element; };
        Group group;
        for (int p = 0; p < ranks; ++p) {
            if (p == rank) continue;
            send(values + p * chunk, bytes_of(p), p);
            receive(others + p * chunk, bytes_of(rank), p);
        }
        group.end();
        const bool whole = segment.chunk * ranks == tensor.size();
        std::byte* const gathered = whole ? values : others;
        sum_in_rank_order(tensor.dtype(), gathered + rank * chunk,
                          {values + rank * chunk, others, segment.chunk, segment.counts[rank], ranks, rank},
                          communication_stream());
        gather(gathered + rank * chunk, gathered, chunk);
        if (!whole)
            SWITCHYARD_CUDA(cudaMemcpyAsync(values, others, tensor.bytes(), cudaMemcpyDeviceToDevice,
                                            communication_stream()));
    }

    ncclComm_t communicator_;
    SumOrder order_;
};

}  // namespace

std::string nccl_version() {
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess) return "";
    return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

namespace {

/// Of the first collectives: a rank's part, where NCCL chooses what is quick to begin, and all parts, where
/// it chooses what moves most.
constexpr std::size_t least_connecting_bytes = 256, most_connecting_bytes = std::size_t{16} << 20;
constexpr std::chrono::seconds longest_connecting{300};  // thousands of peers take a minute

/// What the calls give, in their order, up to the first that fails.
ncclResult_t first_collectives(ncclComm_t communicator, const Comm& comm, SumOrder order, std::byte* memory) {
    cudaStream_t const stream = communication_stream();
    const auto size = static_cast<std::size_t>(comm.size()), rank = static_cast<std::size_t>(comm.rank());
    ncclResult_t code = ncclSuccess;
    const auto call = [&](ncclResult_t returned) { code = code == ncclSuccess ? returned : code; };
    for (const std::size_t bytes : {least_connecting_bytes, most_connecting_bytes / size / 4 * 4}) {
        call(ncclGroupStart());
        for (std::size_t p = 0; p < size; ++p) {
            if (p == rank) continue;
            const int peer = static_cast<int>(p);
            call(ncclSend(memory + rank * bytes, bytes, ncclUint8, peer, communicator, stream));
            call(ncclRecv(memory + p * bytes, bytes, ncclUint8, peer, communicator, stream));
        }
        call(ncclGroupEnd());
        if (code != ncclSuccess) break;
        call(ncclAllGather(memory + rank * bytes, memory, bytes, ncclUint8, communicator, stream));
        if (code == ncclSuccess && order == SumOrder::library)
            call(ncclAllReduce(memory, memory, size * bytes / 4, ncclFloat32, ncclSum, communicator, stream));
        if (code != ncclSuccess) break;
    }
    return code;
}

/// Until the stream has done them; a rank that failed is told of, or does not come before the deadline.
ncclResult_t wait_for_first_collectives(ncclComm_t communicator) {
    using std::chrono::steady_clock;
    for (const auto end = steady_clock::now() + longest_connecting; steady_clock::now() < end;
         std::this_thread::yield()) {
        const cudaError_t state = cudaStreamQuery(communication_stream());
        if (state == cudaSuccess) return ncclSuccess;
        if (state != cudaErrorNotReady) return ncclUnhandledCudaError;
        cudaGetLastError();  // forgets that it was not ready
        ncclResult_t elsewhere = ncclSuccess;
        const ncclResult_t code = ncclCommGetAsyncError(communicator, &elsewhere);
        if (code != ncclSuccess) return code;
        if (elsewhere != ncclSuccess && elsewhere != ncclInProgress) return elsewhere;
    }
    return ncclRemoteError;
}

/// NCCL connects, and takes memory for it, at the first collective of a kind and size
/// (NCCL_RUNTIME_CONNECT, the default since 2.22): what would fail in the first step fails here. Aborts the
/// communicator then, at once, so that no rank waits for this one.
ncclResult_t connect(ncclComm_t& communicator, const Comm& comm, SumOrder order) {
    std::byte* const memory = backend::allocate(
        std::max(most_connecting_bytes, static_cast<std::size_t>(comm.size()) * least_connecting_bytes));
    ncclResult_t code =
        memory ? first_collectives(communicator, comm, order, memory) : ncclUnhandledCudaError;
    if (code == ncclSuccess) code = wait_for_first_collectives(communicator);
    if (code != ncclSuccess) {
        ncclCommAbort(communicator);
        communicator = nullptr;
        cudaGetLastError();  // what NCCL met is told, and is no failure of the next launch
    }
    if (memory) backend::release(memory);
    return code;
}

/// "" where no rank has one; the same on all. Of several the one that others may only have heard of.
std::string agreed_problem(const Comm& comm, ncclResult_t code) {
    const std::vector<ncclResult_t> codes = gather_values(comm, code);
    const auto fails = [](ncclResult_t c) { return c != ncclSuccess; };
    auto failed =
        std::find_if(codes.begin(), codes.end(), [&](auto c) { return fails(c) && c != ncclRemoteError; });
    if (failed == codes.end()) failed = std::find_if(codes.begin(), codes.end(), fails);
    if (failed == codes.end()) return "";
    return fmt::format("rank {}: {}", failed - codes.begin(), ncclGetErrorString(*failed));
}

}  // namespace

NcclStart start_nccl(const Comm& comm, SumOrder order) {
    compute_stream();  // which chooses the device
    ncclUniqueId id{};
    ncclResult_t code = comm.rank() == 0 ? ncclGetUniqueId(&id) : ncclSuccess;
    const std::string sent =  // nothing where rank 0 has no id
        broadcast(comm, code == ncclSuccess ? std::string(id.internal, sizeof id.internal) : "");
    barrier(comm);  // NCCL waits without MPI, which may still have to pass the id on
    ncclComm_t communicator = nullptr;
    if (!sent.empty()) {
        std::memcpy(id.internal, sent.data(), sizeof id.internal);
        code = ncclCommInitRank(&communicator, comm.size(), id, comm.rank());
    }
    std::string problem = agreed_problem(comm, code);
    if (problem.empty()) problem = agreed_problem(comm, connect(communicator, comm, order));
    if (problem.empty()) return {std::make_unique<Nccl>(communicator, order), ""};
    if (communicator) ncclCommAbort(communicator);
    return {nullptr, problem};
}

}  // namespace switchyard::cuda
