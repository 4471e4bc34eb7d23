// Each owner's rows, in the order of items and rows, are cut into segments of at most `capacity` elements.
#include "optim/buckets.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace switchyard {
namespace {

/// A tensor as (rows, width).
Tensor matrix(Tensor tensor, std::int64_t width) {
    return tensor.reshape({tensor.size() / width, width});
}

Tensor slice(Tensor segment, std::int64_t offset, std::int64_t rows, std::int64_t width) {
    return segment.rows(offset, rows * width).reshape({rows, width});
}

/// Where rows go: each owner fills its segment of a bucket, then that of the next bucket.
class SegmentFiller {
  public:
    SegmentFiller(int ranks, std::int64_t capacity) : capacity_(capacity), open_(ranks) {}

    struct Place {
        std::size_t bucket = 0;
        std::int64_t offset = 0;  // elements, in the owner's segment
    };
    Place add(int owner, std::int64_t width) {
        internal_check(width <= capacity_, "a row of {} elements exceeds a bucket segment of {}", width,
                       capacity_);
        Place& next = open_[owner];
        if (next.offset + width > capacity_) next = {next.bucket + 1, 0};
        if (next.bucket == segments_.size()) segments_.push_back(0);
        const Place place = next;
        next.offset += width;
        segments_[next.bucket] = std::max(segments_[next.bucket], next.offset);
        return place;
    }
    /// Elements of each bucket's segments: those of the owner that fills most.
    const std::vector<std::int64_t>& segments() const { return segments_; }

  private:
    std::int64_t capacity_;
    std::vector<Place> open_;  // per owner: where its next row goes
    std::vector<std::int64_t> segments_;
};

}  // namespace

double bucket_bytes(const std::vector<BucketItem>& items, int ranks, std::int64_t capacity,
                    std::size_t element_bytes) {
    SegmentFiller filler(ranks, capacity);
    for (const BucketItem& item : items)
        for (int owner : *item.owner) filler.add(owner, item.width);
    double sum = 0;
    for (std::int64_t segment : filler.segments())
        sum += all_gather_bytes(static_cast<double>(segment * ranks) * static_cast<double>(element_bytes),
                                ranks);
    return sum;
}

Buckets::Buckets(const std::vector<BucketItem>& items, int ranks, std::int64_t capacity) : ranks_(ranks) {
    SegmentFiller filler(ranks, capacity);
    for (std::size_t item = 0; item < items.size(); ++item) {
        widths_.push_back(items[item].width);
        const std::vector<int>& owner = *items[item].owner;
        for (std::size_t row = 0; row < owner.size(); ++row) {
            const auto [bucket, offset] = filler.add(owner[row], items[item].width);
            if (bucket == buckets_.size()) buckets_.push_back({0, std::vector<std::vector<Run>>(ranks)});
            std::vector<Run>& runs = buckets_[bucket].runs[owner[row]];
            if (runs.empty() || runs.back().item != static_cast<int>(item))
                runs.push_back({static_cast<int>(item), offset, {}});
            runs.back().rows.push_back(static_cast<std::int32_t>(row));
        }
    }
    for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i].segment = filler.segments()[i];
}

kernels::Rectangle Buckets::rectangle(const Run& run) const {
    return {run.rows.data(), static_cast<std::int64_t>(run.rows.size()), 0, widths_[run.item]};
}

void Buckets::pack(const std::vector<Run>& runs, std::span<const Tensor> tensors, Tensor segment) const {
    for (const Run& run : runs) {
        const kernels::Rectangle part = rectangle(run);
        kernels::pack(matrix(tensors[run.item], part.width), part,
                      slice(segment, run.offset, part.num_rows, part.width));
    }
}

void Buckets::unpack(const std::vector<Run>& runs, Tensor segment, std::span<const Tensor> tensors) const {
    for (const Run& run : runs) {
        const kernels::Rectangle part = rectangle(run);
        kernels::unpack(slice(segment, run.offset, part.num_rows, part.width), part,
                        matrix(tensors[run.item], part.width));
    }
}

void Buckets::reduce(const Comm& comm, std::span<const Tensor> tensors, Tensor send, Tensor received,
                     Traffic& traffic, TrafficGroup group) const {
    if (comm.size() == 1) return;
    for (const Bucket& bucket : buckets_) {
        const Shape shape{ranks_, bucket.segment};
        const Tensor parts = send.view(send.dtype(), shape), arrived = received.view(received.dtype(), shape);
        for (int p = 0; p < ranks_; ++p)
            if (p != comm.rank()) pack(bucket.runs[p], tensors, parts.rows(p, 1).reshape({bucket.segment}));
        start_all_to_all(comm, parts, arrived, traffic, group).wait();
        for (const Run& run : bucket.runs[comm.rank()])
            kernels::sum_parts(arrived, run.offset, comm.rank(), rectangle(run),
                               matrix(tensors[run.item], widths_[run.item]));
    }
}

void Buckets::gather(const Comm& comm, std::span<const Tensor> tensors, Tensor all, Traffic& traffic,
                     TrafficGroup group) const {
    if (comm.size() == 1) return;
    for (const Bucket& bucket : buckets_) {
        const Tensor segments = all.view(tensors.front().dtype(), {ranks_, bucket.segment});
        const auto segment = [&](int p) { return segments.rows(p, 1).reshape({bucket.segment}); };
        pack(bucket.runs[comm.rank()], tensors, segment(comm.rank()));
        start_all_gather(comm, segments.rows(comm.rank(), 1), segments, traffic, group).wait();
        for (int p = 0; p < ranks_; ++p)
            if (p != comm.rank()) unpack(bucket.runs[p], segment(p), tensors);
    }
}

}  // namespace switchyard
