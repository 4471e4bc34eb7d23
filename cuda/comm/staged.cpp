// Collectives through pinned host memory. What is sent is copied there when the collective starts, while the
// device goes on; wait() sends it by MPI, as the CPU back end does, and copies back what came. Copies run on
// the communication stream, so a piece of pinned memory may be used again at once: its next copy comes after
// the last one, and the host touches it only after waiting for that.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "comm/messages.hpp"
#include "core/error.hpp"
#include "core/units.hpp"
#include "cuda/comm/stream_order.hpp"
#include "cuda/comm/transport.hpp"
#include "cuda/runtime.hpp"

namespace switchyard::cuda {
namespace {

struct Piece {
    std::byte* memory = nullptr;
    std::size_t bytes = 0;
};

/// Pieces of pinned memory that are free. None is given back before the process ends.
std::vector<Piece>& free_pieces() {
    static auto* const pieces = new std::vector<Piece>;
    return *pieces;
}

/// A piece that is free again when its last owner is gone.
std::shared_ptr<std::byte> take_pinned(std::size_t bytes) {
    std::vector<Piece>& pieces = free_pieces();
    const auto fits = [&](const Piece& piece) { return piece.bytes >= bytes; };
    auto found = std::find_if(pieces.begin(), pieces.end(), fits);
    Piece piece;
    if (found != pieces.end()) {
        piece = *found;
        pieces.erase(found);
    } else {
        void* memory = nullptr;
        const cudaError_t code = cudaMallocHost(&memory, bytes);
        require(code != cudaErrorMemoryAllocation,
                "out of memory: {} of pinned host memory for a collective are not there (the copies of what "
                "ranks send "
                "each other); use parallel.collectives = nccl with a GPU for each rank, or fewer ranks on "
                "this node",
                bytes_text(bytes));
        SWITCHYARD_CUDA(code);
        piece = {static_cast<std::byte*>(memory), bytes};
    }
    return {piece.memory, [piece](std::byte*) {
                std::vector<Piece>& all = free_pieces();
                const auto larger = [&](const Piece& other) { return other.bytes >= piece.bytes; };
                all.insert(std::find_if(all.begin(), all.end(), larger),
                           piece);  // the smallest that fits is taken
            }};
}

void copy_to_host(Tensor from, std::byte* to) {
    if (!from.empty())
        SWITCHYARD_CUDA(
            cudaMemcpyAsync(to, from.raw(), from.bytes(), cudaMemcpyDeviceToHost, communication_stream()));
}
void copy_to_device(const std::byte* from, Tensor to) {
    if (!to.empty())
        SWITCHYARD_CUDA(
            cudaMemcpyAsync(to.raw(), from, to.bytes(), cudaMemcpyHostToDevice, communication_stream()));
}

constexpr std::size_t aligned(std::size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

class Staged final : public Transport {
  public:
    std::string text() const override { return "MPI through pinned host memory"; }

    Finish start_all_reduce(const Comm& comm, Tensor tensor, Tensor) override {
        const std::size_t place = aligned(tensor.bytes());
        const std::size_t scratch_bytes = tensor.bytes() + 64 * static_cast<std::size_t>(comm.size());
        auto memory = take_pinned(place + scratch_bytes);
        auto copied = start_copies([&] { copy_to_host(tensor, memory.get()); });
        return [comm, tensor, memory, copied, place, scratch_bytes] {
            copied->wait();
            const Tensor values(memory.get(), tensor.dtype(), tensor.shape()),
                scratch(memory.get() + place, DType::u8, {static_cast<std::int64_t>(scratch_bytes)});
            OrderedReduction reduction(comm, values, scratch, message_limit);
            reduction.scatter();
            reduction.finish();
            copy_to_device(memory.get(), tensor);
            continue_compute();
        };
    }

    Finish start_exchange(const Comm& comm, std::span<const Tensor> send,
                          std::span<const Tensor> received) override {
        // Pinned: what is sent to rank 0, 1, ..., then what comes from them.
        std::vector<std::size_t> places;
        std::size_t end = 0;
        for (const auto& tensors : {send, received})
            for (const Tensor& tensor : tensors) {
                places.push_back(end);
                end += aligned(tensor.bytes());
            }
        auto memory = take_pinned(std::max<std::size_t>(end, 1));
        auto copied = start_copies([&] {
            for (int p = 0; p < comm.size(); ++p)
                if (p != comm.rank()) copy_to_host(send[p], memory.get() + places[p]);
        });
        return [comm, memory, copied, places, sent = std::vector<Tensor>(send.begin(), send.end()),
                received = std::vector<Tensor>(received.begin(), received.end())] {
            copied->wait();
            const auto received_at = [&](int p) { return memory.get() + places[comm.size() + p]; };
            Requests requests;
            for (int away = 1; away < comm.size(); ++away) {
                const int from = (comm.rank() + comm.size() - away) % comm.size();
                start_receive(comm, received_at(from), received[from].bytes(), from, message_limit, requests);
            }
            for (int away = 1; away < comm.size(); ++away) {
                const int to = (comm.rank() + away) % comm.size();
                start_send(comm, memory.get() + places[to], sent[to].bytes(), to, message_limit, requests);
            }
            requests.wait();
            for (int p = 0; p < comm.size(); ++p)
                if (p != comm.rank()) copy_to_device(received_at(p), received[p]);
            continue_compute();
        };
    }

    Finish start_all_gather(const Comm& comm, Tensor mine, Tensor all) override {
        auto memory = take_pinned(all.bytes());
        std::byte* const place = memory.get() + static_cast<std::size_t>(comm.rank()) * mine.bytes();
        auto copied = start_copies([&] { copy_to_host(mine, place); });
        return [comm, memory, copied, place, mine, all] {
            copied->wait();
            Requests requests;
            start_gather_parts(comm, place, memory.get(), mine.bytes(), message_limit, requests);
            requests.wait();
            copy_to_device(memory.get(), all);
            continue_compute();
        };
    }

  private:
    template <class Copies>
    static std::shared_ptr<Mark> start_copies(Copies copies) {
        Mark(compute_stream()).hold(communication_stream());
        copies();
        return std::make_shared<Mark>(communication_stream());
    }
    static void continue_compute() { Mark(communication_stream()).hold(compute_stream()); }
};

}  // namespace

std::unique_ptr<Transport> make_staged() {
    return std::make_unique<Staged>();
}

}  // namespace switchyard::cuda
