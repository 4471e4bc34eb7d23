// The collectives of the CUDA back end: checks and counts, the same as those of the CPU. How tensors travel
// is decided for each communicator (way.cpp). All ranks start and wait in the same order.
#include "comm/collectives.hpp"

#include "comm/timed_pending.hpp"
#include "core/error.hpp"
#include "cuda/comm/way.hpp"
#include "cuda/runtime.hpp"

namespace switchyard {

Pending start_all_reduce(const Comm& comm, Tensor tensor, Tensor scratch, Traffic& traffic,
                         TrafficGroup group) {
    if (comm.size() == 1 || tensor.empty()) return {};
    internal_check(scratch.bytes() >= tensor.bytes() + 64 * static_cast<std::size_t>(comm.size()),
                   "all-reduce of {} bytes over {} ranks with a scratch of {} bytes", tensor.bytes(),
                   comm.size(), scratch.bytes());
    const CollectiveCall call =
        begin_collective("all-reduce", group, comm, static_cast<double>(tensor.bytes()));
    traffic.add(group, all_reduce_bytes(static_cast<double>(tensor.bytes()), comm.size()));
    return timed_pending(traffic, call, cuda::transport_of(comm).start_all_reduce(comm, tensor, scratch));
}

Pending start_exchange(const Comm& comm, std::span<const Tensor> send, std::span<const Tensor> received,
                       Traffic& traffic, TrafficGroup group) {
    const auto ranks = static_cast<std::size_t>(comm.size());
    internal_check(send.size() == ranks && received.size() == ranks,
                   "exchange of {} and {} parts over {} ranks", send.size(), received.size(), ranks);
    if (ranks == 1) return {};
    const CollectiveCall call = begin_collective("exchange", group, comm, bytes_to_others(comm, send));
    traffic.add(group, call.bytes);
    return timed_pending(traffic, call, cuda::transport_of(comm).start_exchange(comm, send, received));
}

Pending start_all_gather(const Comm& comm, Tensor mine, Tensor all, Traffic& traffic, TrafficGroup group) {
    internal_check(all.bytes() == mine.bytes() * static_cast<std::size_t>(comm.size()),
                   "all-gather of {} into {} over {} ranks", mine.shape().text(), all.shape().text(),
                   comm.size());
    if (all.empty()) return {};
    if (comm.size() == 1) {
        if (mine.raw() != all.raw())
            SWITCHYARD_CUDA(cudaMemcpyAsync(all.raw(), mine.raw(), mine.bytes(), cudaMemcpyDeviceToDevice,
                                            cuda::compute_stream()));
        return {};
    }
    const CollectiveCall call = begin_collective("all-gather", group, comm, static_cast<double>(all.bytes()));
    traffic.add(group, all_gather_bytes(static_cast<double>(all.bytes()), comm.size()));
    return timed_pending(traffic, call, cuda::transport_of(comm).start_all_gather(comm, mine, all));
}

}  // namespace switchyard
