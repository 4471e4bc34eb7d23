// Each owner's rows, in the order of items and rows, are cut into segments of at most `capacity` elements.
// Matrices whose blocks fill whole segments begin a new one, so that their rows need no copy.
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
    /// Calls f(row, place) for the rows of `item`.
    template <class F>
    void add(const BucketItem& item, F f) {
        if (fills_segments(item)) std::fill(open_.begin(), open_.end(), Place{segments_.size(), 0});
        for (std::size_t row = 0; row < item.owner->size(); ++row)
            f(row, add((*item.owner)[row], item.width));
    }
    /// Elements of each bucket's segments: those of the owner that fills most.
    const std::vector<std::int64_t>& segments() const { return segments_; }

  private:
    /// Whether every owner has a block of rows, and the first one a segment full.
    bool fills_segments(const BucketItem& item) const {
        const std::vector<int>& owner = *item.owner;
        return std::is_sorted(owner.begin(), owner.end()) &&
               std::count(owner.begin(), owner.end(), 0) * item.width >= capacity_;
    }
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

    std::int64_t capacity_;
    std::vector<Place> open_;  // per owner: where its next row goes
    std::vector<std::int64_t> segments_;
};

}  // namespace

double bucket_bytes(const std::vector<BucketItem>& items, int ranks, std::int64_t capacity,
                    std::size_t element_bytes) {
    SegmentFiller filler(ranks, capacity);
    for (const BucketItem& item : items) filler.add(item, [](std::size_t, SegmentFiller::Place) {});
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
        filler.add(items[item], [&](std::size_t row, SegmentFiller::Place place) {
            if (place.bucket == buckets_.size())
                buckets_.push_back({0, std::vector<std::vector<Run>>(ranks)});
            std::vector<Run>& runs = buckets_[place.bucket].runs[(*items[item].owner)[row]];
            if (runs.empty() || runs.back().item != static_cast<int>(item))
                runs.push_back({static_cast<int>(item), place.offset, {}});
            runs.back().rows.push_back(static_cast<std::int32_t>(row));
        });
    }
    for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i].segment = filler.segments()[i];
}

kernels::Rectangle Buckets::rectangle(const Run& run) const {
    return {run.rows.data(), static_cast<std::int64_t>(run.rows.size()), 0, widths_[run.item]};
}

Tensor Buckets::in_place(const std::vector<Run>& runs, std::int64_t segment, DType dtype,
                         std::span<const Tensor> tensors) const {
    if (runs.size() != 1) return {};
    const Run& run = runs.front();
    const auto num_rows = static_cast<std::int64_t>(run.rows.size());
    const std::int64_t width = widths_[run.item];
    const bool side_by_side = run.rows.back() - run.rows.front() + 1 == num_rows;
    if (!side_by_side || num_rows * width != segment || tensors[run.item].dtype() != dtype) return {};
    return matrix(tensors[run.item], width).rows(run.rows.front(), num_rows);
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
        const Tensor packed = send.view(send.dtype(), shape),
                     arrived = received.view(received.dtype(), shape);
        std::vector<Tensor> to(ranks_), from(ranks_);
        for (int p = 0; p < ranks_; ++p) {
            if (p == comm.rank()) continue;
            from[p] = arrived.rows(p, 1);
            to[p] = in_place(bucket.runs[p], bucket.segment, send.dtype(), tensors);
            if (!to[p].empty()) continue;
            to[p] = packed.rows(p, 1);
            pack(bucket.runs[p], tensors, to[p].reshape({bucket.segment}));
        }
        start_exchange(comm, to, from, traffic, group).wait();
        for (const Run& run : bucket.runs[comm.rank()])
            kernels::sum_parts(arrived, run.offset, comm.rank(), rectangle(run),
                               matrix(tensors[run.item], widths_[run.item]));
    }
}

void Buckets::gather(const Comm& comm, std::span<const Tensor> tensors, Tensor all, Traffic& traffic,
                     TrafficGroup group) const {
    if (comm.size() == 1) return;
    const DType dtype = tensors.front().dtype();
    for (const Bucket& bucket : buckets_) {
        const Tensor packed = all.view(dtype, {ranks_, bucket.segment});
        std::vector<Tensor> parts(ranks_);
        std::vector<bool> lies_here(ranks_);
        for (int p = 0; p < ranks_; ++p) {
            parts[p] = in_place(bucket.runs[p], bucket.segment, dtype, tensors);
            lies_here[p] = !parts[p].empty();
            if (!lies_here[p]) parts[p] = packed.rows(p, 1).reshape({bucket.segment});
        }
        const int own = comm.rank();
        if (!lies_here[own]) pack(bucket.runs[own], tensors, parts[own]);
        start_exchange(comm, std::vector<Tensor>(ranks_, parts[own]), parts, traffic, group).wait();
        for (int p = 0; p < ranks_; ++p)
            if (p != own && !lies_here[p]) unpack(bucket.runs[p], parts[p], tensors);
    }
}

}  // namespace switchyard
