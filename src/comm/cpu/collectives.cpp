// The collectives of the CPU back end, whose tensors lie in host memory. All ranks start and wait in the same
// order.
#include "comm/collectives.hpp"

#include <cstring>

#include "comm/collectives_choice.hpp"
#include "comm/messages.hpp"
#include "comm/timed_pending.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

void deliver_locally(Tensor from, Tensor to) {
    if (from.raw() != to.raw() && !from.empty()) std::memmove(to.raw(), from.raw(), from.bytes());
}

}  // namespace

Pending start_all_reduce(const Comm& comm, Tensor tensor, Tensor scratch, Traffic& traffic,
                         TrafficGroup group) {
    if (comm.size() == 1 || tensor.empty()) return {};
    const CollectiveCall call =
        begin_collective("all-reduce", group, comm, static_cast<double>(tensor.bytes()));
    traffic.add(group, all_reduce_bytes(static_cast<double>(tensor.bytes()), comm.size()));
    auto reduction = std::make_shared<OrderedReduction>(comm, tensor, scratch, message_limit);
    reduction->scatter();
    return timed_pending(traffic, call, [reduction] { reduction->finish(); });
}

Pending start_exchange(const Comm& comm, std::span<const Tensor> send, std::span<const Tensor> received,
                       Traffic& traffic, TrafficGroup group) {
    const auto ranks = static_cast<std::size_t>(comm.size());
    internal_check(send.size() == ranks && received.size() == ranks,
                   "exchange of {} and {} parts over {} ranks", send.size(), received.size(), ranks);
    if (ranks == 1) return {};
    const CollectiveCall call = begin_collective("exchange", group, comm, bytes_to_others(comm, send));
    traffic.add(group, call.bytes);
    auto requests = std::make_shared<Requests>();
    // Each rank begins with another peer, so that no rank is flooded.
    for (int away = 1; away < comm.size(); ++away) {
        const int from = (comm.rank() + comm.size() - away) % comm.size();
        start_receive(comm, received[from].raw(), received[from].bytes(), from, message_limit, *requests);
    }
    for (int away = 1; away < comm.size(); ++away) {
        const int to = (comm.rank() + away) % comm.size();
        start_send(comm, send[to].raw(), send[to].bytes(), to, message_limit, *requests);
    }
    return timed_pending(traffic, call, [requests] { requests->wait(); });
}

Pending start_all_gather(const Comm& comm, Tensor mine, Tensor all, Traffic& traffic, TrafficGroup group) {
    internal_check(all.bytes() == mine.bytes() * comm.size(), "all-gather of {} into {} over {} ranks",
                   mine.shape().text(), all.shape().text(), comm.size());
    if (comm.size() == 1 || all.empty()) {
        deliver_locally(mine, all);
        return {};
    }
    const CollectiveCall call = begin_collective("all-gather", group, comm, static_cast<double>(all.bytes()));
    traffic.add(group, all_gather_bytes(static_cast<double>(all.bytes()), comm.size()));
    auto requests = std::make_shared<Requests>();
    start_gather_parts(comm, mine.raw(), all.raw(), mine.bytes(), message_limit, *requests);
    return timed_pending(traffic, call, [requests] { requests->wait(); });
}

void choose_collectives(const CollectivesChoice& choice) {
    require(choice.way == CollectivesWay::automatic || choice.way == CollectivesWay::mpi,
            "parallel.collectives = {} concerns GPUs (this program computes on CPUs, where MPI reaches all "
            "memory); use "
            "auto or mpi",
            choice.way == CollectivesWay::nccl ? "nccl" : "staged");
    require(choice.order == SumOrder::rank,
            "parallel.sum_order = library asks NCCL for its sums (this program computes on CPUs, which add "
            "in the order "
            "of ranks); use rank");
}

std::string collectives_text(const Comm& comm) {
    return comm.size() == 1 ? "one rank" : "MPI";
}

}  // namespace switchyard
