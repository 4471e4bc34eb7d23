// Collectives on back-end memory: start_...() returns a Pending, wait() ends it. Sums are formed in rank
// order from the values of all ranks, so they depend neither on message timing nor on the library's
// algorithm, every rank gets the same bits, and bf16 is summed in f32. Payload counted per rank: payload x
// (P-1)/P for reduce-scatter, all-gather and broadcast (the mean over ranks), twice that for all-reduce, what
// is sent for exchanges.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "comm/comm.hpp"
#include "core/stamps.hpp"
#include "core/tensor.hpp"

namespace switchyard {

enum class TrafficGroup { activations, loss, gradients, values, candidates, moves, frozen, batches, other };
inline constexpr int num_traffic_groups = 9;
const char* name_of(TrafficGroup);

/// Bytes sent by this rank, by group, and when it waited. One per run, handed to whoever communicates.
struct Traffic {
    std::array<double, num_traffic_groups> bytes{};
    Waits* waits = nullptr;  // where wait() notes the time it takes, if anyone wants to know
    void add(TrafficGroup g, double sent) { bytes[static_cast<int>(g)] += sent; }
};

/// Bytes that one rank of P sends for a payload, by the counting rule above; whole numbers (payloads of an
/// all-gather are P equal parts), so that their sums are exact in any order.
double all_reduce_bytes(double payload_bytes, int ranks);
double all_gather_bytes(double payload_bytes, int ranks);  // reduce-scatter too
double broadcast_bytes(double payload_bytes, int ranks);

/// A collective under way. wait() must be called once; a destroyed Pending that was started waits.
class Pending {
  public:
    Pending() = default;
    explicit Pending(std::function<void()> finish) : finish_(std::move(finish)) {}
    Pending(Pending&& other) noexcept : finish_(std::exchange(other.finish_, nullptr)) {}
    Pending& operator=(Pending&& other) noexcept;
    ~Pending();
    void wait();

  private:
    std::function<void()> finish_;
};

/// tensor (any shape) <- sum over ranks, in place. `scratch`: at least tensor.bytes() + 64 * P, untouched
/// until wait().
Pending start_all_reduce(const Comm&, Tensor tensor, Tensor scratch, Traffic&, TrafficGroup);

/// send[p] goes to rank p, received[p] comes from rank p; this rank's own two are not touched. Sizes in bytes
/// agree pair by pair, 0 sends nothing. The tensors may lie anywhere: rows need not be collected first.
Pending start_exchange(const Comm&, std::span<const Tensor> send, std::span<const Tensor> received, Traffic&,
                       TrafficGroup);

/// all (P, ...) <- `mine` of every rank in rank order. `mine` may be all.rows(rank, 1).
Pending start_all_gather(const Comm&, Tensor mine, Tensor all, Traffic&, TrafficGroup);

/// Host scalars, summed in rank order: the same bits on all ranks.
double all_reduce_sum(const Comm&, double);
double all_reduce_max(const Comm&, double);
double all_reduce_min(const Comm&, double);
std::uint64_t all_reduce_sum_u64(const Comm&, std::uint64_t);  // modulo 2^64
std::vector<std::uint64_t> all_reduce_sum_u64(const Comm&, std::vector<std::uint64_t>);
std::string broadcast(const Comm&, std::string text, int root = 0);
std::int64_t broadcast(const Comm&, std::int64_t value, int root = 0);
/// `values` of rank 0 to all ranks, in one message.
void broadcast(const Comm&, std::span<std::int32_t> values, Traffic&, TrafficGroup);
/// Short texts of all ranks in rank order, on rank 0; nothing on the others.
std::vector<std::string> gather(const Comm&, const std::string& mine);
void barrier(const Comm&);

/// The same verdict on every rank before a step that all must take or none: throws UserError on all ranks
/// (AgreedError, if there are several) when `ok` is false on one, with the message of the lowest such rank,
/// and its name unless all failed.
void agree(const Comm&, bool ok, const std::string& message);

/// The text of the lowest rank that has one, on all ranks. `ranks`: how many have one; 0: none, and no text.
struct FirstText {
    std::string text;
    int rank = 0, ranks = 0;
};
FirstText first_text(const Comm&, const std::string& mine);

/// Runs `work` on every rank, catching its exception; throws on all ranks if one threw. A rank whose work is
/// done waits as long as others work (WaitingForOthers). An InternalError
/// stays one (AgreedInternalError, if there are several ranks), anything else becomes what agree() throws.
void agree_on(const Comm&, const std::function<void()>& work);

/// agree_on() for work that gives something: each rank's own result.
template <class Work>
auto agreed(const Comm& comm, Work&& work) {
    std::optional<std::invoke_result_t<Work>> result;
    agree_on(comm, [&] { result.emplace(work()); });
    return std::move(*result);
}

/// The text that `work` gives on rank 0, which alone calls it, on all ranks: one message brings text or
/// error. Throws on all ranks where it throws, as agree_on() does.
std::string text_of_root(const Comm&, const std::function<std::string()>& work);

}  // namespace switchyard
