// The count arrays and datatypes of a non-blocking call live until it is complete, as MPI requires.
#include "comm/messages.hpp"

#include <algorithm>
#include <exception>

#include "comm/ordered_sum.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

constexpr int tag = 1;  // one is enough: messages between two ranks of a communicator keep their order
constexpr std::int64_t cache_line = 64;

std::byte* at(void* base, std::size_t offset) {
    return static_cast<std::byte*>(base) + offset;
}
const std::byte* at(const void* base, std::size_t offset) {
    return static_cast<const std::byte*>(base) + offset;
}

/// Calls `start(offset, bytes)` for pieces of at most `limit` bytes.
template <class Start>
void in_pieces(std::size_t bytes, std::size_t limit, Start start) {
    for (std::size_t offset = 0; offset < bytes; offset += limit)
        start(offset, std::min(limit, bytes - offset));
}

}  // namespace

Requests::~Requests() {
    for (const std::size_t receive : receives_) {
        MPI_Request& request = requests_[receive];
        if (request != MPI_REQUEST_NULL && MPI_Cancel(&request) == MPI_SUCCESS)
            MPI_Wait(&request, MPI_STATUS_IGNORE);  // completes whether the request was cancelled or received
    }
    for (MPI_Datatype& type : types_)
        if (std::uncaught_exceptions() == 0) MPI_Type_free(&type);
}

MPI_Request* Requests::add() {
    requests_.push_back(MPI_REQUEST_NULL);
    return &requests_.back();
}

MPI_Request* Requests::add_receive() {
    receives_.push_back(requests_.size());
    return add();
}

MPI_Datatype Requests::add_part_type(std::size_t part, std::size_t stride) {
    MPI_Datatype contiguous = MPI_DATATYPE_NULL, type = MPI_DATATYPE_NULL;
    SWITCHYARD_MPI(MPI_Type_contiguous(static_cast<int>(part), MPI_BYTE, &contiguous));
    SWITCHYARD_MPI(MPI_Type_create_resized(contiguous, 0, static_cast<MPI_Aint>(stride), &type));
    SWITCHYARD_MPI(MPI_Type_free(&contiguous));
    SWITCHYARD_MPI(MPI_Type_commit(&type));
    types_.push_back(type);
    return type;
}

void Requests::wait() {
    if (requests_.empty()) return;  // a process without MPI, perhaps
    SWITCHYARD_MPI(MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE));
    requests_.clear();
    receives_.clear();
    for (MPI_Datatype& type : types_) SWITCHYARD_MPI(MPI_Type_free(&type));
    types_.clear();
}

void start_gather_parts(const Comm& comm, const void* mine, void* all, std::size_t part_bytes,
                        std::size_t limit, Requests& requests) {
    const bool in_place = mine == at(all, comm.rank() * part_bytes);
    const auto source = [&](std::size_t offset) -> const void* {
        return in_place ? MPI_IN_PLACE : at(mine, offset);
    };
    if (part_bytes * comm.size() <= limit) {
        const int count = static_cast<int>(part_bytes);
        SWITCHYARD_MPI(
            MPI_Iallgather(source(0), count, MPI_BYTE, all, count, MPI_BYTE, comm.handle(), requests.add()));
        return;
    }
    in_pieces(part_bytes, limit, [&](std::size_t offset, std::size_t bytes) {
        const MPI_Datatype type = requests.add_part_type(bytes, part_bytes);
        SWITCHYARD_MPI(
            MPI_Iallgather(source(offset), 1, type, at(all, offset), 1, type, comm.handle(), requests.add()));
    });
}

void start_send(const Comm& comm, const void* data, std::size_t bytes, int to, std::size_t limit,
                Requests& requests) {
    in_pieces(bytes, limit, [&](std::size_t offset, std::size_t piece) {
        SWITCHYARD_MPI(MPI_Isend(at(data, offset), static_cast<int>(piece), MPI_BYTE, to, tag, comm.handle(),
                                 requests.add()));
    });
}

void start_receive(const Comm& comm, void* data, std::size_t bytes, int from, std::size_t limit,
                   Requests& requests) {
    in_pieces(bytes, limit, [&](std::size_t offset, std::size_t piece) {
        SWITCHYARD_MPI(MPI_Irecv(at(data, offset), static_cast<int>(piece), MPI_BYTE, from, tag,
                                 comm.handle(), requests.add_receive()));
    });
}

std::vector<SumSegment> sum_segments(std::int64_t size, std::size_t element_bytes, int ranks,
                                     std::size_t limit) {
    const std::int64_t line = cache_line / static_cast<std::int64_t>(element_bytes);  // elements
    const std::int64_t lines_of_all = line * ranks;
    const std::int64_t whole =
        std::max<std::int64_t>(1, static_cast<std::int64_t>(limit / element_bytes) / lines_of_all) *
        lines_of_all;
    std::vector<SumSegment> segments;
    for (std::int64_t begin = 0; begin < size; begin += whole) {
        const std::int64_t length = std::min(whole, size - begin);
        SumSegment segment{begin, (length + lines_of_all - 1) / lines_of_all * line, {}};
        for (int p = 0; p < ranks; ++p)
            segment.counts.push_back(std::clamp<std::int64_t>(length - p * segment.chunk, 0, segment.chunk));
        segments.push_back(std::move(segment));
    }
    return segments;
}

OrderedReduction::OrderedReduction(const Comm& comm, Tensor tensor, Tensor scratch, std::size_t limit)
    : comm_(comm), tensor_(tensor), scratch_(scratch) {
    const std::size_t element = size_of(tensor.dtype());
    internal_check(scratch.bytes() >= tensor.bytes() + cache_line * comm.size(),
                   "all-reduce of {} bytes over {} ranks with a scratch of {} bytes", tensor.bytes(),
                   comm.size(), scratch.bytes());
    const auto cuts = sum_segments(tensor.size(), element, comm.size(), limit);
    segments_ = std::vector<Segment>(cuts.size());
    for (std::size_t s = 0; s < cuts.size(); ++s) {
        Segment& segment = segments_[s];
        segment.chunks = cuts[s];
        for (int p = 0; p < comm.size(); ++p) {
            const std::int64_t before = p * segment.chunks.chunk;
            segment.counts.push_back(static_cast<int>(segment.chunks.counts[p] * element));
            segment.offsets.push_back(segment.counts[p] ? static_cast<int>(before * element) : 0);
            segment.received_counts.push_back(static_cast<int>(segment.chunks.counts[comm.rank()] * element));
            segment.received_offsets.push_back(static_cast<int>(before * element));
        }
    }
}

void OrderedReduction::scatter() {
    const std::size_t element = size_of(tensor_.dtype());
    for (Segment& segment : segments_) {
        const std::size_t begin = segment.chunks.begin * element;
        SWITCHYARD_MPI(MPI_Ialltoallv(at(tensor_.raw(), begin), segment.counts.data(), segment.offsets.data(),
                                      MPI_BYTE, at(scratch_.raw(), begin), segment.received_counts.data(),
                                      segment.received_offsets.data(), MPI_BYTE, comm_.handle(),
                                      segment.requests.add()));
    }
}

void OrderedReduction::finish() {
    const std::size_t element = size_of(tensor_.dtype());
    const int rank = comm_.rank();
    for (Segment& segment : segments_) {
        segment.requests.wait();
        const std::size_t begin = segment.chunks.begin * element;
        ordered_sum(tensor_.dtype(), at(tensor_.raw(), begin + segment.offsets[rank]),
                    at(scratch_.raw(), begin), comm_.size(), segment.chunks.chunk,
                    segment.chunks.counts[rank]);
        SWITCHYARD_MPI(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_BYTE, at(tensor_.raw(), begin),
                                       segment.counts.data(), segment.offsets.data(), MPI_BYTE,
                                       comm_.handle(), segment.requests.add()));
    }
    for (Segment& segment : segments_) segment.requests.wait();
}

}  // namespace switchyard
