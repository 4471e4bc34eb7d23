// TallMatrices: matrices whose rows are spread over ranks in blocks are summed to the owners of their rows
// and distributed; those of r columns are orthonormalised. Gram matrices are summed over the world in f64 and
// solved on the host, all in one read; every rank solves the same ones and gets the same bits.
#pragma once

#include <algorithm>
#include <deque>
#include <span>
#include <vector>

#include "model/context.hpp"
#include "model/extent.hpp"
#include "optim/buckets.hpp"
#include "optim/ownership.hpp"

namespace switchyard {

/// A matrix (rows local, r; or a whole gradient). Its rows are owned in blocks by the ranks of `group`
/// (block_owners()).
struct TallMatrix {
    Tensor values;
    const Comm* group = nullptr;
};

class TallMatrices {
  public:
    /// To be called for every shape before allocate().
    void expect(const Comm& group, std::int64_t rows);
    /// The same for rows of more than r elements, which sum() may be given.
    void expect_width(std::int64_t width) { most_columns_ = std::max(most_columns_, width); }
    /// count: the largest number of matrices that are orthonormalised in a call.
    void allocate(const ModelContext&, std::int64_t count, std::int64_t low_rank);

    /// Rows <- their sum over the group, at their owners; the others keep local values. Accumulate type.
    void sum(std::span<const TallMatrix>) const;
    /// to[i] <- an orthonormal basis of the columns of from[i] (the Gram-Schmidt process with positive
    /// lengths), on all ranks; from[i] counts at its owners only, and may be to[i]. Matrices whose columns
    /// are numerically dependent are left as they are; returns which were not. The host waits once.
    std::vector<bool> orthonormalise(std::span<const TallMatrix> from, std::span<const TallMatrix> to);
    /// Rows of all ranks <- the owners' values. Compute type.
    void gather(std::span<const TallMatrix>) const;
    /// The rows that this rank owns; empty: none.
    static Tensor owned(const TallMatrix&);
    /// The rows of a matrix that a rank owns: how many, and the first of them.
    static RowSlice owned_by(int rank, const Comm& group, std::int64_t rows);
    /// result (1) f64 <- max |Q' Q - 1|, the same on all ranks.
    void measure(const TallMatrix& q, Tensor result);

    /// Bytes that this rank sends in these calls.
    double sum_bytes(std::span<const TallMatrix>) const;
    double gather_bytes(std::span<const TallMatrix>) const;
    double orthonormalise_bytes(std::span<const TallMatrix> to) const;
    double measure_bytes() const;
    /// Host memory of orthonormalise().
    double host_bytes() const { return 8 * static_cast<double>(count_ * low_rank_ * low_rank_); }

  private:
    /// The matrices of one group as buckets send them.
    struct Sent {
        const Comm* group = nullptr;
        std::vector<Tensor> tensors;
        std::deque<std::vector<int>> owners;
        std::vector<BucketItem> items;
    };
    std::vector<Sent> by_group(std::span<const TallMatrix>) const;
    static Buckets buckets_of(const Sent&, std::int64_t capacity);
    std::int64_t capacity(const Comm& group) const;
    double gram_bytes(std::int64_t count) const;
    Tensor gram(std::int64_t first, std::int64_t count) const;
    /// gram (r, r) += rows' rows.
    void add_gram(const TallMatrix&, Tensor gram) const;
    void sum_grams(std::int64_t count) const;

    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    std::int64_t count_ = 0, low_rank_ = 0, most_rows_ = 0, most_columns_ = 0;
    std::vector<const Comm*> groups_;
    Tensor grams_;            // f64, flat: (count, r, r), and r more
    Tensor gram_scratch_;     // f64, flat
    Tensor rows_, product_;   // (largest number of owned rows, r) f64
    Tensor minus_ones_;       // (r, 1) f64
    Tensor send_, received_;  // accumulate type, flat
    std::vector<double> host_;
};

}  // namespace switchyard
