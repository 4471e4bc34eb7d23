// Non-blocking transfers of any length in host memory. MPI counts are int: nothing here passes a count, an
// offset or a product of them beyond `limit` bytes; what is longer is cut, the same way on all ranks.
#pragma once

#include <cstddef>
#include <type_traits>
#include <vector>

#include "comm/comm.hpp"
#include "core/tensor.hpp"

namespace switchyard {

inline constexpr std::size_t message_limit = std::size_t{1} << 30;  // bytes

/// Requests under way with what must live until they end; wait() ends all of them. Their memory is the
/// caller's: what an exception leaves behind before wait() is called off where MPI can (receives, which would
/// write into it), else left to the end of the process, which is near.
class Requests {
  public:
    Requests() = default;
    Requests(const Requests&) = delete;
    Requests& operator=(const Requests&) = delete;
    ~Requests();

    MPI_Request* add();
    MPI_Request* add_receive();
    /// Room for so many: adding them cannot fail then.
    void reserve(std::size_t count);
    /// `part` bytes whose successors in an array of parts follow at distance `stride`. Freed after the last
    /// request.
    MPI_Datatype add_part_type(std::size_t part, std::size_t stride);
    void wait();

  private:
    std::vector<MPI_Request> requests_;
    std::vector<std::size_t> receives_;  // places in requests_
    std::vector<MPI_Datatype> types_;
};

/// `mine` of every rank in rank order: small values, not pointers.
template <class T>
std::vector<T> gather_values(const Comm& comm, const T& mine) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<T> all(static_cast<std::size_t>(comm.size()), mine);
    if (comm.size() > 1)
        SWITCHYARD_MPI(
            MPI_Allgather(&mine, sizeof(T), MPI_BYTE, all.data(), sizeof(T), MPI_BYTE, comm.handle()));
    return all;
}

/// `all` (P parts of part_bytes) <- `mine` of every rank; in place when `mine` is this rank's part of `all`.
void start_gather_parts(const Comm&, const void* mine, void* all, std::size_t part_bytes, std::size_t limit,
                        Requests&);

void start_send(const Comm&, const void* data, std::size_t bytes, int to, std::size_t limit, Requests&);
void start_receive(const Comm&, void* data, std::size_t bytes, int from, std::size_t limit, Requests&);

/// Chunks of one segment of a sum over P ranks: rank p sums elements [begin + p chunk, begin + p chunk +
/// counts[p]).
struct SumSegment {
    std::int64_t begin = 0, chunk = 0;
    std::vector<std::int64_t> counts;  // chunk, but less or nothing for the last ranks of the last segment
};

/// Cuts `size` elements into segments of at most `limit` bytes (but at least 64 per rank). The values of all
/// ranks for one's own chunk of a segment go to scratch from element `begin` on, `chunk` apart: size + 64 P
/// bytes suffice.
std::vector<SumSegment> sum_segments(std::int64_t size, std::size_t element_bytes, int ranks,
                                     std::size_t limit);

/// A sum over all ranks in two halves: scatter() starts all-to-alls of chunks, finish() adds up this rank's
/// chunks in rank order and gathers. In place; `scratch` as sum_segments says.
class OrderedReduction {
  public:
    OrderedReduction(const Comm&, Tensor tensor, Tensor scratch, std::size_t limit);
    void scatter();
    void finish();

  private:
    struct Segment {
        SumSegment chunks;
        std::vector<int> counts, offsets;                    // bytes, of the tensor's chunks
        std::vector<int> received_counts, received_offsets;  // bytes, of the ranks' values in scratch
        Requests requests;
    };
    Comm comm_;
    Tensor tensor_, scratch_;
    std::vector<Segment> segments_;
};

}  // namespace switchyard
