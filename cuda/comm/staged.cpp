// Collectives through pinned host memory: wait() copies out what is sent, sends it by MPI as the CPU back end
// does, and copies back what came. The memory has a fixed size, so what is larger goes in rounds, for which
// its two halves are used in turn: while ranks exchange the messages of a round, the device copies out the
// next. Copies run on the communication stream.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "comm/messages.hpp"
#include "core/error.hpp"
#include "cuda/comm/stream_order.hpp"
#include "cuda/comm/transport.hpp"
#include "cuda/pinned.hpp"
#include "cuda/runtime.hpp"

namespace switchyard::cuda {
namespace {

constexpr std::size_t half_bytes = pinned_for_messages / 2;

std::byte* half_of(std::int64_t round) {
    static std::byte* const memory = pinned_memory(pinned_for_messages, "messages between ranks");
    return memory + (round % 2) * half_bytes;
}

constexpr std::size_t aligned(std::size_t bytes) {
    return (bytes + 255) / 256 * 256;
}
/// What each of `count` pieces may have for all of them to fit into a half.
std::size_t piece_bytes(int count) {
    const std::size_t bytes = half_bytes / static_cast<std::size_t>(count) / 256 * 256;
    internal_check(bytes > 0, "{} pieces in {} bytes of pinned memory", count, half_bytes);
    return bytes;
}

void copy_to_host(const std::byte* from, std::byte* to, std::size_t bytes) {
    if (bytes > 0)
        SWITCHYARD_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, communication_stream()));
}
void copy_to_device(const std::byte* from, std::byte* to, std::size_t bytes) {
    if (bytes > 0)
        SWITCHYARD_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, communication_stream()));
}

/// A collective in rounds of pinned memory.
class Rounds {
  public:
    virtual ~Rounds() = default;
    virtual std::int64_t count() const = 0;
    /// Starts copies of what this rank sends in a round.
    virtual void copy_out(std::int64_t round, std::byte* memory) = 0;
    virtual void exchange(std::int64_t round, std::byte* memory) = 0;
    /// Starts copies of what came.
    virtual void copy_in(std::int64_t round, std::byte* memory) = 0;
};

/// Runs the rounds, for tensors as they were at `ready`. A copy out of round r comes after the copies in of
/// round r - 2 on their stream, so when the host has waited for it, all of that half is free.
void run(Rounds& rounds, const Mark& ready) {
    ready.hold(communication_stream());
    std::optional<Mark> copied[2];
    const auto start = [&](std::int64_t round) {
        rounds.copy_out(round, half_of(round));
        copied[round % 2].emplace(communication_stream());
    };
    for (std::int64_t round = 0; round < rounds.count(); ++round) {
        if (round == 0) start(round);
        const Mark& here = *copied[round % 2];
        if (round + 1 < rounds.count()) start(round + 1);
        here.wait();
        rounds.exchange(round, half_of(round));
        rounds.copy_in(round, half_of(round));
    }
    Mark(communication_stream()).hold(compute_stream());
}

/// Sums of stretches of the tensor.
class AllReduce final : public Rounds {
  public:
    AllReduce(const Comm& comm, Tensor tensor)
        : comm_(comm),
          tensor_(tensor.reshape({tensor.size()})),
          scratch_bytes_(64 * static_cast<std::size_t>(comm.size())) {
        internal_check(scratch_bytes_ + 512 < half_bytes, "a sum over {} ranks through pinned memory",
                       comm.size());
        most_ = static_cast<std::int64_t>((half_bytes - scratch_bytes_ - 256) / 2 / size_of(tensor.dtype()));
    }
    std::int64_t count() const override { return (tensor_.size() + most_ - 1) / most_; }
    void copy_out(std::int64_t round, std::byte* memory) override {
        const Tensor here = part(round);
        copy_to_host(here.data<std::byte>(), memory, here.bytes());
    }
    void exchange(std::int64_t round, std::byte* memory) override {
        const Tensor here = part(round);
        const auto scratch_bytes = static_cast<std::int64_t>(here.bytes() + scratch_bytes_);
        OrderedReduction reduction(comm_, Tensor(memory, here.dtype(), here.shape()),
                                   Tensor(memory + aligned(here.bytes()), DType::u8, {scratch_bytes}),
                                   message_limit);
        reduction.scatter();
        reduction.finish();
    }
    void copy_in(std::int64_t round, std::byte* memory) override {
        const Tensor here = part(round);
        copy_to_device(memory, here.data<std::byte>(), here.bytes());
    }

  private:
    Tensor part(std::int64_t round) const {
        return tensor_.rows(round * most_, std::min(most_, tensor_.size() - round * most_));
    }

    Comm comm_;
    Tensor tensor_;
    std::size_t scratch_bytes_;
    std::int64_t most_ = 0;  // elements of a round
};

/// Pieces of what goes to each of the others and comes from it. Two ranks cut what they send each other
/// alike, so a round of one is met by the same round of the other; how many rounds a rank has is its own
/// affair.
class Exchange final : public Rounds {
  public:
    Exchange(const Comm& comm, std::span<const Tensor> send, std::span<const Tensor> received)
        : comm_(comm),
          send_(send.begin(), send.end()),
          received_(received.begin(), received.end()),
          most_(piece_bytes(2 * (comm.size() - 1))) {}

    std::int64_t count() const override {
        std::size_t longest = 0;
        for (int p = 0; p < comm_.size(); ++p)
            if (p != comm_.rank()) longest = std::max({longest, send_[p].bytes(), received_[p].bytes()});
        return static_cast<std::int64_t>((longest + most_ - 1) / most_);
    }
    void copy_out(std::int64_t round, std::byte* memory) override {
        for_others(1, [&](int p) {
            const Piece piece = piece_of(send_[p], round);
            copy_to_host(piece.data, memory + place(p), piece.bytes);
        });
    }
    /// Each rank begins with another peer.
    void exchange(std::int64_t round, std::byte* memory) override {
        Requests requests;
        for_others(comm_.size() - 1, [&](int p) {
            start_receive(comm_, memory + place(p) + most_, piece_of(received_[p], round).bytes, p,
                          message_limit, requests);
        });
        for_others(1, [&](int p) {
            start_send(comm_, memory + place(p), piece_of(send_[p], round).bytes, p, message_limit, requests);
        });
        requests.wait();
    }
    void copy_in(std::int64_t round, std::byte* memory) override {
        for_others(1, [&](int p) {
            const Piece piece = piece_of(received_[p], round);
            copy_to_device(memory + place(p) + most_, piece.data, piece.bytes);
        });
    }

  private:
    struct Piece {
        std::byte* data = nullptr;
        std::size_t bytes = 0;
    };
    Piece piece_of(Tensor tensor, std::int64_t round) const {
        const std::size_t begin = static_cast<std::size_t>(round) * most_;
        if (begin >= tensor.bytes()) return {};
        return {tensor.data<std::byte>() + begin, std::min(most_, tensor.bytes() - begin)};
    }
    /// Where a piece for rank p lies, with the piece from it after it.
    std::size_t place(int p) const { return static_cast<std::size_t>(p - (p > comm_.rank())) * 2 * most_; }
    /// f(p) for all others, `step` ranks further each time, from `step` ranks further than this one on.
    template <class F>
    void for_others(int step, F f) const {
        for (int away = 1; away < comm_.size(); ++away) f((comm_.rank() + away * step) % comm_.size());
    }

    Comm comm_;
    std::vector<Tensor> send_, received_;
    std::size_t most_;  // bytes of a piece
};

/// Pieces of `mine` of every rank.
class AllGather final : public Rounds {
  public:
    AllGather(const Comm& comm, Tensor mine, Tensor all)
        : comm_(comm), mine_(mine), all_(all), most_(piece_bytes(comm.size())) {}

    std::int64_t count() const override {
        return static_cast<std::int64_t>((mine_.bytes() + most_ - 1) / most_);
    }
    void copy_out(std::int64_t round, std::byte* memory) override {
        const std::size_t bytes = bytes_of(round);
        copy_to_host(mine_.data<std::byte>() + begin(round), memory + rank() * bytes, bytes);
    }
    void exchange(std::int64_t round, std::byte* memory) override {
        const std::size_t bytes = bytes_of(round);
        Requests requests;
        start_gather_parts(comm_, memory + rank() * bytes, memory, bytes, message_limit, requests);
        requests.wait();
    }
    void copy_in(std::int64_t round, std::byte* memory) override {
        auto* const all = all_.data<std::byte>();
        if (count() == 1) return copy_to_device(memory, all, all_.bytes());
        const std::size_t bytes = bytes_of(round);
        for (int p = 0; p < comm_.size(); ++p)
            copy_to_device(memory + p * bytes, all + p * mine_.bytes() + begin(round), bytes);
    }

  private:
    std::size_t rank() const { return static_cast<std::size_t>(comm_.rank()); }
    std::size_t begin(std::int64_t round) const { return static_cast<std::size_t>(round) * most_; }
    std::size_t bytes_of(std::int64_t round) const { return std::min(most_, mine_.bytes() - begin(round)); }

    Comm comm_;
    Tensor mine_, all_;
    std::size_t most_;  // bytes of a piece
};

class Staged final : public Transport {
  public:
    std::string text() const override { return "MPI through pinned host memory"; }

    Finish start_all_reduce(const Comm& comm, Tensor tensor, Tensor) override {
        return finish(std::make_shared<AllReduce>(comm, tensor));
    }
    Finish start_exchange(const Comm& comm, std::span<const Tensor> send,
                          std::span<const Tensor> received) override {
        return finish(std::make_shared<Exchange>(comm, send, received));
    }
    Finish start_all_gather(const Comm& comm, Tensor mine, Tensor all) override {
        return finish(std::make_shared<AllGather>(comm, mine, all));
    }

  private:
    static Finish finish(std::shared_ptr<Rounds> rounds) {
        return [rounds = std::move(rounds), ready = std::make_shared<Mark>(compute_stream())] {
            run(*rounds, *ready);
        };
    }
};

}  // namespace

std::unique_ptr<Transport> make_staged() {
    half_of(0);  // if there is none, that is found before anything is computed
    return std::make_unique<Staged>();
}

}  // namespace switchyard::cuda
