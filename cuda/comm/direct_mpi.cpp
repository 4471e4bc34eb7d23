// Collectives point to point from and to device memory, by an MPI library that can. MPI knows no streams:
// wait() waits on the host until the device has come to the start, and returns when the messages have
// arrived. Non-blocking collectives are not used: libraries sum and move device memory in them only where
// they are built for it.
#include <cstddef>
#include <limits>
#include <memory>
#include <vector>

#include "comm/messages.hpp"
#include "cuda/comm/rank_sum.hpp"
#include "cuda/comm/stream_order.hpp"
#include "cuda/comm/transport.hpp"
#include "cuda/runtime.hpp"

namespace switchyard::cuda {
namespace {

/// Bytes of device memory, for one rank or from it.
struct Part {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
};

/// Sends parts[p] to each rank p and receives from it. Each rank begins with another peer.
template <class Sent, class Received>
void exchange(const Comm& comm, Sent sent, Received received) {
    Requests requests;
    for (int away = 1; away < comm.size(); ++away) {
        const int from = (comm.rank() + comm.size() - away) % comm.size();
        const Part part = received(from);
        start_receive(comm, part.data, part.bytes, from, message_limit, requests);
    }
    for (int away = 1; away < comm.size(); ++away) {
        const int to = (comm.rank() + away) % comm.size();
        const Part part = sent(to);
        start_send(comm, part.data, part.bytes, to, message_limit, requests);
    }
    requests.wait();
}

Part part_of(Tensor tensor) {
    return {tensor.data<std::byte>(), tensor.bytes()};
}

void all_reduce(const Comm& comm, Tensor tensor, Tensor scratch) {
    const auto element = static_cast<std::int64_t>(size_of(tensor.dtype()));
    const SumSegment segment = sum_segments(tensor.size(), size_of(tensor.dtype()), comm.size(),
                                            std::numeric_limits<std::int64_t>::max())
                                   .front();
    const auto chunk_of = [&](int p) {
        return Part{tensor.data<std::byte>() + p * segment.chunk * element,
                    static_cast<std::size_t>(segment.counts[p] * element)};
    };
    const Part mine = chunk_of(comm.rank());
    exchange(comm, chunk_of, [&](int p) {
        return Part{scratch.data<std::byte>() + p * segment.chunk * element, mine.bytes};
    });
    sum_in_rank_order(
        tensor.dtype(), mine.data,
        {mine.data, scratch.raw(), segment.chunk, segment.counts[comm.rank()], comm.size(), comm.rank()},
        communication_stream());
    Mark(communication_stream()).wait();
    exchange(
        comm, [&](int) { return mine; }, chunk_of);
}

class DirectMpi final : public Transport {
  public:
    std::string text() const override { return "MPI from and to GPU memory"; }

    Finish start_all_reduce(const Comm& comm, Tensor tensor, Tensor scratch) override {
        return [comm, tensor, scratch, ready = std::make_shared<Mark>(compute_stream())] {
            ready->wait();
            all_reduce(comm, tensor, scratch);
        };
    }

    Finish start_exchange(const Comm& comm, std::span<const Tensor> send,
                          std::span<const Tensor> received) override {
        return [comm, ready = std::make_shared<Mark>(compute_stream()),
                send = std::vector<Tensor>(send.begin(), send.end()),
                received = std::vector<Tensor>(received.begin(), received.end())] {
            ready->wait();
            exchange(
                comm, [&](int p) { return part_of(send[p]); }, [&](int p) { return part_of(received[p]); });
        };
    }

    Finish start_all_gather(const Comm& comm, Tensor mine, Tensor all) override {
        std::byte* const place = all.data<std::byte>() + static_cast<std::size_t>(comm.rank()) * mine.bytes();
        if (place != mine.raw())
            SWITCHYARD_CUDA(
                cudaMemcpyAsync(place, mine.raw(), mine.bytes(), cudaMemcpyDeviceToDevice, compute_stream()));
        return [comm, mine, all, ready = std::make_shared<Mark>(compute_stream())] {
            ready->wait();
            exchange(
                comm, [&](int) { return part_of(mine); },
                [&](int p) {
                    return Part{all.data<std::byte>() + static_cast<std::size_t>(p) * mine.bytes(),
                                mine.bytes()};
                });
        };
    }
};

}  // namespace

std::unique_ptr<Transport> make_direct_mpi() {
    return std::make_unique<DirectMpi>();
}

}  // namespace switchyard::cuda
