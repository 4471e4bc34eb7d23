// Buckets: rows of many matrices are sent to their owners, or from them, in equal padded segments, one per
// owner. Consecutive rows that fill a segment are sent from and received in place; others are packed first.
// Every rank of the group builds the same buckets.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "comm/collectives.hpp"
#include "kernels/rows.hpp"

namespace switchyard {

/// Rows of one 2-D (or 1-D: width 1) tensor spread over the ranks of a group.
struct BucketItem {
    std::int64_t width = 0;
    const std::vector<int>* owner = nullptr;
};

/// Bytes that one rank sends in Buckets::reduce() or gather() with elements of this size.
double bucket_bytes(const std::vector<BucketItem>&, int ranks, std::int64_t capacity,
                    std::size_t element_bytes);

/// Which rows are in which segment: tables on the host, made once for a distribution of rows and then shared.
class BucketTable {
  public:
    /// Some rows of one item, contiguous in a segment from `offset` on.
    struct Run {
        int item = 0;
        std::int64_t offset = 0;  // in elements
        std::int64_t count = 0;
        std::int32_t first = 0;  // number of the first row
        /// Index in lists() where its rows begin, ascending; -1: they are first ... first + count - 1.
        std::int64_t list = -1;
    };
    /// capacity: the largest number of elements of a segment (at least the widest row).
    BucketTable(const std::vector<BucketItem>&, int ranks, std::int64_t capacity);

    int ranks() const { return ranks_; }
    std::size_t num_buckets() const { return segments_.size(); }
    std::int64_t segment(std::size_t bucket) const { return segments_[bucket]; }  // elements
    std::span<const Run> runs(std::size_t bucket, int owner) const;
    std::int64_t width(int item) const { return widths_[item]; }
    /// The rows of all runs that are not ranges.
    std::span<const std::int32_t> lists() const { return lists_; }
    /// Bytes that one rank sends in reduce() or gather().
    double bytes(std::size_t element_bytes) const;

  private:
    int ranks_ = 1;
    std::vector<std::int64_t> widths_, segments_;
    std::vector<Run> runs_;               // sorted by bucket, then by owner
    std::vector<std::size_t> first_run_;  // index of the first run of bucket * ranks + owner
    std::vector<std::int32_t> lists_;
};

class Buckets {
  public:
    Buckets() = default;
    /// lists: the table's lists() in back-end memory.
    Buckets(std::shared_ptr<const BucketTable> table, Tensor lists)
        : table_(std::move(table)), lists_(lists) {}

    /// Rows of tensors[i] that this rank owns <- their sum over the ranks of `comm`, in rank order and in the
    /// tensors' type; rows of other owners keep their local values. send, received: (P * capacity) elements
    /// in the type that is sent.
    void reduce(const Comm&, std::span<const Tensor> tensors, Tensor send, Tensor received, Traffic&,
                TrafficGroup) const;
    /// Rows of tensors[i] <- the owner's values. all: (P * capacity) elements of the tensors' type.
    void gather(const Comm&, std::span<const Tensor> tensors, Tensor all, Traffic&, TrafficGroup) const;

    const BucketTable* table() const { return table_.get(); }

  private:
    using Runs = std::span<const BucketTable::Run>;
    kernels::RowPart rows(const BucketTable::Run&, std::span<const Tensor> tensors) const;
    kernels::RowPart slice(const BucketTable::Run&, Tensor segment) const;
    /// The rows of `runs` in their own memory, if they fill a segment consecutively in this type; else an
    /// empty tensor.
    Tensor in_place(Runs, std::int64_t segment, DType, std::span<const Tensor> tensors) const;

    std::shared_ptr<const BucketTable> table_;
    Tensor lists_;
};

}  // namespace switchyard
