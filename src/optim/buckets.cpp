// The rows of each owner, in the order of items and rows, are cut into segments of at most `capacity`
// elements. A matrix whose blocks fill whole segments begins a new segment, so that its rows need not be
// copied.
#include "optim/buckets.hpp"

#include <algorithm>
#include <numeric>

#include "core/error.hpp"

namespace switchyard {
namespace {

/// A tensor as (rows, width).
Tensor matrix(Tensor tensor, std::int64_t width) {
    return tensor.reshape({tensor.size() / width, width});
}

/// Assigns rows to segments: each owner fills its segment of a bucket, then its segment of the next bucket.
class SegmentFiller {
  public:
    SegmentFiller(int ranks, std::int64_t capacity) : capacity_(capacity), open_(ranks) {}

    struct Place {
        std::size_t bucket = 0;
        std::int64_t offset = 0;  // in elements, within the owner's segment
    };
    /// Calls f(row, place) for the rows of `item`.
    template <class F>
    void add(const BucketItem& item, F f) {
        if (fills_segments(item)) std::fill(open_.begin(), open_.end(), Place{segments_.size(), 0});
        for (std::size_t row = 0; row < item.owner->size(); ++row)
            f(row, add((*item.owner)[row], item.width));
    }
    /// Elements of the segments of each bucket, as many as its fullest segment needs.
    const std::vector<std::int64_t>& segments() const { return segments_; }

  private:
    /// True if several owners have blocks of rows and the block of the first owner fills a segment.
    bool fills_segments(const BucketItem& item) const {
        const std::vector<int>& owner = *item.owner;
        return std::is_sorted(owner.begin(), owner.end()) &&
               std::count(owner.begin(), owner.end(), 0) * item.width >= capacity_ && owner.back() != 0;
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
    std::vector<Place> open_;  // per owner: the place of its next row
    std::vector<std::int64_t> segments_;
};

double sent_bytes(const std::vector<std::int64_t>& segments, int ranks, std::size_t element_bytes) {
    double sum = 0;
    for (const std::int64_t segment : segments)
        sum += all_gather_bytes(static_cast<double>(segment * ranks) * static_cast<double>(element_bytes),
                                ranks);
    return sum;
}

}  // namespace

double bucket_bytes(const std::vector<BucketItem>& items, int ranks, std::int64_t capacity,
                    std::size_t element_bytes) {
    SegmentFiller filler(ranks, capacity);
    for (const BucketItem& item : items) filler.add(item, [](std::size_t, SegmentFiller::Place) {});
    return sent_bytes(filler.segments(), ranks, element_bytes);
}

BucketTable::BucketTable(const std::vector<BucketItem>& items, int ranks, std::int64_t capacity)
    : ranks_(ranks) {
    struct Open {  // the run that the next row of an owner may extend
        std::size_t bucket = 0, run = 0;
        int item = -1;
    };
    struct Found {
        Run run;
        std::size_t place = 0;  // bucket * ranks + owner
    };
    std::vector<Open> open(ranks);
    std::vector<Found> found;
    std::vector<std::size_t> run_of_row;  // rows of all items in order
    SegmentFiller filler(ranks, capacity);
    for (int item = 0; item < static_cast<int>(items.size()); ++item) {
        widths_.push_back(items[item].width);
        filler.add(items[item], [&](std::size_t row, SegmentFiller::Place place) {
            const int owner = (*items[item].owner)[row];
            Open& last = open[owner];
            if (last.item != item || last.bucket != place.bucket) {
                last = {place.bucket, found.size(), item};
                found.push_back({{item, place.offset, 0, static_cast<std::int32_t>(row), -1},
                                 place.bucket * ranks + owner});
            }
            Run& run = found[last.run].run;
            if (run.first + run.count != static_cast<std::int64_t>(row)) run.list = 0;  // not a range
            ++run.count;
            run_of_row.push_back(last.run);
        });
    }
    segments_ = filler.segments();
    // Sorts the runs by place; runs with the same place keep their order.
    first_run_.assign(segments_.size() * ranks + 1, 0);
    for (const Found& x : found) ++first_run_[x.place + 1];
    std::partial_sum(first_run_.begin(), first_run_.end(), first_run_.begin());
    std::vector<std::size_t> next = first_run_, position(found.size());
    runs_.resize(found.size());
    for (std::size_t i = 0; i < found.size(); ++i) runs_[position[i] = next[found[i].place]++] = found[i].run;
    std::int64_t listed = 0;
    for (Run& run : runs_)
        if (run.list >= 0) run.list = std::exchange(listed, listed + run.count);
    lists_.resize(listed);
    std::vector<std::int64_t> filled(runs_.size(), 0);
    std::size_t in_order = 0;
    for (const BucketItem& item : items)
        for (std::size_t row = 0; row < item.owner->size(); ++row) {
            const std::size_t i = position[run_of_row[in_order++]];
            if (runs_[i].list >= 0) lists_[runs_[i].list + filled[i]++] = static_cast<std::int32_t>(row);
        }
}

std::span<const BucketTable::Run> BucketTable::runs(std::size_t bucket, int owner) const {
    const std::size_t place = bucket * ranks_ + owner;
    return {runs_.data() + first_run_[place], first_run_[place + 1] - first_run_[place]};
}

double BucketTable::bytes(std::size_t element_bytes) const {
    return sent_bytes(segments_, ranks_, element_bytes);
}

kernels::RowPart Buckets::rows(const BucketTable::Run& run, std::span<const Tensor> tensors) const {
    const kernels::Rows rows = run.list < 0 ? kernels::Rows::range(run.first, run.count)
                                            : kernels::Rows::listed(lists_.rows(run.list, run.count));
    return kernels::whole_rows(matrix(tensors[run.item], table_->width(run.item)), rows);
}

kernels::RowPart Buckets::slice(const BucketTable::Run& run, Tensor segment) const {
    const std::int64_t width = table_->width(run.item);
    return kernels::whole_rows(segment.rows(run.offset, run.count * width).reshape({run.count, width}));
}

Tensor Buckets::in_place(Runs runs, std::int64_t segment, DType dtype,
                         std::span<const Tensor> tensors) const {
    if (runs.size() != 1) return {};
    const BucketTable::Run& run = runs.front();
    const std::int64_t width = table_->width(run.item);
    if (run.list >= 0 || run.count * width != segment || tensors[run.item].dtype() != dtype) return {};
    return matrix(tensors[run.item], width).rows(run.first, run.count);
}

void Buckets::reduce(const Comm& comm, std::span<const Tensor> tensors, Tensor send, Tensor received,
                     Traffic& traffic, TrafficGroup group) const {
    if (comm.size() == 1) return;
    const int ranks = table_->ranks(), own = comm.rank();
    std::vector<Tensor> to(ranks), from(ranks);
    std::vector<kernels::RowSum> sums;
    kernels::RowBatch pack;
    for (std::size_t bucket = 0; bucket < table_->num_buckets(); ++bucket) {
        const std::int64_t segment = table_->segment(bucket);
        const Tensor packed = send.view(send.dtype(), {ranks, segment}),
                     arrived = received.view(received.dtype(), {ranks, segment});
        for (int p = 0; p < ranks; ++p) {
            if (p == own) continue;
            from[p] = arrived.rows(p, 1);
            to[p] = in_place(table_->runs(bucket, p), segment, send.dtype(), tensors);
            if (!to[p].empty()) continue;
            to[p] = packed.rows(p, 1).reshape({segment});
            for (const auto& run : table_->runs(bucket, p)) pack.copy(rows(run, tensors), slice(run, to[p]));
        }
        pack.run();
        start_exchange(comm, to, from, traffic, group).wait();
        sums.clear();
        for (const auto& run : table_->runs(bucket, own)) sums.push_back({rows(run, tensors), run.offset});
        if (!sums.empty()) kernels::sum_parts(arrived, own, sums);
    }
}

void Buckets::gather(const Comm& comm, std::span<const Tensor> tensors, Tensor all, Traffic& traffic,
                     TrafficGroup group) const {
    if (comm.size() == 1) return;
    const int ranks = table_->ranks(), own = comm.rank();
    const DType dtype = tensors.front().dtype();
    std::vector<Tensor> parts(ranks);
    kernels::RowBatch pack, unpack;
    for (std::size_t bucket = 0; bucket < table_->num_buckets(); ++bucket) {
        const std::int64_t segment = table_->segment(bucket);
        const Tensor packed = all.view(dtype, {ranks, segment});
        for (int p = 0; p < ranks; ++p) {
            parts[p] = in_place(table_->runs(bucket, p), segment, dtype, tensors);
            if (!parts[p].empty()) continue;
            parts[p] = packed.rows(p, 1).reshape({segment});
            for (const auto& run : table_->runs(bucket, p)) {
                if (p == own)
                    pack.copy(rows(run, tensors), slice(run, parts[p]));
                else
                    unpack.copy(slice(run, parts[p]), rows(run, tensors));
            }
        }
        pack.run();
        start_exchange(comm, std::vector<Tensor>(ranks, parts[own]), parts, traffic, group).wait();
        unpack.run();
    }
}

}  // namespace switchyard
