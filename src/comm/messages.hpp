// Non-blocking transfers of any length in host memory. MPI counts are int, so no count, offset or product
// passed to MPI exceeds `limit` bytes; longer transfers are cut, in the same way on all ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "comm/comm.hpp"
#include "core/last_calls.hpp"
#include "core/tensor.hpp"

namespace switchyard {

inline constexpr std::size_t message_limit = std::size_t{1} << 30;  // bytes

/// Requests that are not complete, and what must live until they are; wait() completes all of them. The
/// memory belongs to the caller. If an exception is thrown before wait(), receives, which would write into
/// that memory, are cancelled where MPI can; sends are left to the end of the process, which is near.
class Requests {
  public:
    Requests() = default;
    Requests(const Requests&) = delete;
    Requests& operator=(const Requests&) = delete;
    ~Requests();

    MPI_Request* add();
    MPI_Request* add_receive();
    /// A datatype of `part` bytes, whose next part in an array of parts is at distance `stride`. Freed after
    /// the last request.
    MPI_Datatype add_part_type(std::size_t part, std::size_t stride);
    void wait();

  private:
    std::vector<MPI_Request> requests_;
    std::vector<std::size_t> receives_;  // their indices in requests_
    std::vector<MPI_Datatype> types_;
};

/// Collectives of host values (agreements, broadcasts, sums) that this process took part in so far, also
/// where it was alone.
std::uint64_t host_collectives();

/// A collective of host values while it goes on: it is counted, and the watchdog knows of it.
class HostCollective {
  public:
    /// `name` is a literal.
    HostCollective(const char* name, const Comm&);
    HostCollective(const CollectiveCall&);
    ~HostCollective();
    HostCollective(const HostCollective&) = delete;
    HostCollective& operator=(const HostCollective&) = delete;

  private:
    CollectiveCall call_;
};

/// The values `mine` of all ranks, in rank order. For small values without pointers.
template <class T>
std::vector<T> gather_values(const Comm& comm, const T& mine) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<T> all(static_cast<std::size_t>(comm.size()), mine);
    const HostCollective here("all-gather of values", comm);
    if (comm.size() > 1)
        SWITCHYARD_MPI(
            MPI_Allgather(&mine, sizeof(T), MPI_BYTE, all.data(), sizeof(T), MPI_BYTE, comm.handle()));
    return all;
}

/// `all` (P parts of part_bytes) <- `mine` of every rank; in place if `mine` is this rank's part of `all`.
void start_gather_parts(const Comm&, const void* mine, void* all, std::size_t part_bytes, std::size_t limit,
                        Requests&);

void start_send(const Comm&, const void* data, std::size_t bytes, int to, std::size_t limit, Requests&);
void start_receive(const Comm&, void* data, std::size_t bytes, int from, std::size_t limit, Requests&);

/// The chunks of one segment of a sum over P ranks: rank p sums elements [begin + p chunk, begin + p chunk +
/// counts[p]).
struct SumSegment {
    std::int64_t begin = 0, chunk = 0;
    std::vector<std::int64_t> counts;  // equal to chunk; less, or 0, for the last ranks of the last segment
};

/// Cuts `size` elements into segments of at most `limit` bytes (but at least 64 per rank). The values of all
/// ranks for a rank's own chunk go to scratch, from element `begin` on and `chunk` apart: size + 64 P bytes
/// are enough.
std::vector<SumSegment> sum_segments(std::int64_t size, std::size_t element_bytes, int ranks,
                                     std::size_t limit);

/// A sum over all ranks in two halves: scatter() starts all-to-alls of chunks; finish() sums this rank's
/// chunks in rank order and gathers the results. In place; for `scratch` see sum_segments().
class OrderedReduction {
  public:
    OrderedReduction(const Comm&, Tensor tensor, Tensor scratch, std::size_t limit);
    void scatter();
    void finish();

  private:
    struct Segment {
        SumSegment chunks;
        std::vector<int> counts, offsets;                    // in bytes, for the tensor's chunks
        std::vector<int> received_counts, received_offsets;  // in bytes, for the ranks' values in scratch
        Requests requests;
    };
    Comm comm_;
    Tensor tensor_, scratch_;
    std::vector<Segment> segments_;
};

}  // namespace switchyard
