// The norms c of the rows of V = W + s B A with W frozen, without forming B A:
//   c_i^2 = |W_i|^2 + 2 s <(W A')_i, B_i> + s^2 B_i (A A') B_i'.
// Rows of a row-parallel V are cut over tp, and with parallel.shard_frozen a rank has some rows of W alone, so
// squares are summed over ranks, those of all matrices together.
#pragma once

#include <span>

#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {

/// Of one pair.
class RowNorms {
  public:
    RowNorms(const ModelContext&, const Linear&, std::int64_t low_rank);

    /// (out local), accumulate type: c.
    Tensor values() const { return norms_; }
    /// values <- |row|^2 of this rank's part of those rows of V whose base it keeps, 0 for other rows. The
    /// norms of W, which never changes, are computed if `base_changed`.
    void square(const Linear&, LowRankAdapter&, bool base_changed);
    /// values <- their roots.
    void take_roots() const;

    /// q (r, local), accumulate type <- of_w A W' + of_product A A' B' of the rows kept here, and those
    /// columns of B'. In shared memory.
    struct Rows {
        Tensor q, b;
    };
    Rows rows_through_a(const Linear&, LowRankAdapter&, double of_w, double of_product) const;
    /// The columns of a factor (r, out local) that belong to the rows kept here.
    static kernels::RowPart kept(const Linear&, Tensor factor);

    /// Operations of rows_through_a(), over all ranks.
    double cost(const Linear&, std::int64_t low_rank) const;

  private:
    Tensor norms_;
    Tensor weight_norms_;  // |row of W|^2 (rows kept)
    Tensor wide_;          // accumulate type, shared
    double copies_ = 1;    // ranks that keep the same rows
};

/// Sums of vectors over the rows of all matrices.
class RowSums {
  public:
    /// In the order of the vectors; before memory is allocated.
    void add(const ModelContext&, const Linear&);
    /// vectors[i] (out local of matrix i) <- its sum over the ranks that have a part of it.
    void run(std::span<const Tensor> vectors, TrafficGroup) const;
    /// Adds what run() sends.
    void plan(Traffic&, TrafficGroup) const;

  private:
    /// rows_, so many more that the ranks of dp have equal shares of a sum.
    std::int64_t even_rows() const;

    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    bool sharded_ = false;
    std::vector<Split> splits_;
    std::int64_t rows_ = 0, cut_rows_ = 0;  // of all matrices; of row-parallel ones
    Tensor memory_;                         // shared: the vectors of all matrices, and work space of a sum
};

/// The norms of the pairs of all matrices.
class AllRowNorms {
  public:
    /// In the order of the forward pass; before memory is allocated. All stay where they are.
    void add(const ModelContext&, const Linear&, LowRankAdapter&, RowNorms&);
    /// W is another one than in the last measure().
    void base_changed() { base_changed_ = true; }
    /// values() of each <- c. Collective.
    void measure();
    /// Adds what measure() sends.
    void plan(Traffic& traffic) const { sums_.plan(traffic, TrafficGroup::values); }
    const RowSums& sums() const { return sums_; }

  private:
    struct Pair {
        const Linear* linear;
        LowRankAdapter* adapter;
        RowNorms* norms;
    };
    std::vector<Pair> pairs_;
    RowSums sums_;
    bool base_changed_ = true;
};

}  // namespace switchyard
