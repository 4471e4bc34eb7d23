// Buckets: rows of many matrices travel to their owners, or from them, in equal padded segments, one for each
// owner. Rows that fill a segment side by side travel from and to where they lie, others are collected first.
// Every rank of the group builds the same buckets.
#pragma once

#include <span>
#include <vector>

#include "comm/collectives.hpp"
#include "kernels/elementwise.hpp"

namespace switchyard {

/// Rows of one 2-D (or 1-D: width 1) tensor spread over the ranks of a group.
struct BucketItem {
    std::int64_t width = 0;
    const std::vector<int>* owner = nullptr;
};

/// Bytes that one rank sends in Buckets::reduce() or gather() with elements of this size.
double bucket_bytes(const std::vector<BucketItem>&, int ranks, std::int64_t capacity,
                    std::size_t element_bytes);

class Buckets {
  public:
    Buckets() = default;
    /// capacity: elements of one segment at most (at least the widest row).
    Buckets(const std::vector<BucketItem>&, int ranks, std::int64_t capacity);

    /// Rows of tensors[i] that this rank owns <- their sum over the ranks of `comm`, in rank order, in the
    /// tensors' type; rows owned elsewhere keep their local values. send, received: (P * capacity) elements
    /// in the travelling type.
    void reduce(const Comm&, std::span<const Tensor> tensors, Tensor send, Tensor received, Traffic&,
                TrafficGroup) const;
    /// Rows of tensors[i] <- their owner's. all: (P * capacity) elements of the tensors' type.
    void gather(const Comm&, std::span<const Tensor> tensors, Tensor all, Traffic&, TrafficGroup) const;

  private:
    /// Some rows of one item, contiguous in a segment from `offset` on.
    struct Run {
        int item = 0;
        std::int64_t offset = 0;
        std::vector<std::int32_t> rows;  // ascending
    };
    struct Bucket {
        std::int64_t segment = 0;            // elements
        std::vector<std::vector<Run>> runs;  // per owner
    };
    kernels::Rectangle rectangle(const Run&) const;
    /// The rows of `runs` where they lie, if they fill a segment side by side in this type; else empty.
    Tensor in_place(const std::vector<Run>& runs, std::int64_t segment, DType,
                    std::span<const Tensor> tensors) const;
    void pack(const std::vector<Run>&, std::span<const Tensor> tensors, Tensor segment) const;
    void unpack(const std::vector<Run>&, Tensor segment, std::span<const Tensor> tensors) const;

    int ranks_ = 1;
    std::vector<std::int64_t> widths_;
    std::vector<Bucket> buckets_;
};

}  // namespace switchyard
