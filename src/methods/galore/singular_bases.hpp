// SingularBases: bases of the leading singular vectors of whole gradients. Rows of a gradient are summed to
// their owners over dp, Gram matrices of owned rows over the world in f64; each is solved on the host of one
// rank, which sends its basis to the others, so that all have the same bits whatever their processors are.
#pragma once

#include "methods/galore/tall_matrices.hpp"

namespace switchyard {

/// The gradient G of a matrix, or G', so that its rows are not projected.
struct WholeGradient {
    Tensor values;          // (kept padded, projected padded) in accumulate type: this rank's part of the sum
    Tensor basis;           // (projected padded, r) in compute type: Q as it is
    Tensor projected;       // (kept padded, r) in accumulate type: R of the step
    std::int64_t size = 0;  // of the whole projected dimension
    bool cut = false;       // tp cuts the projected dimension; if not, it cuts the other one
    int solver = 0;         // the rank of the world that solves
};

class SingularBases {
  public:
    /// To be called for every gradient, which needs no memory yet, before TallMatrices::allocate().
    void expect(const ModelContext&, const WholeGradient&, TallMatrices&);
    /// count: the largest number of gradients of a step.
    void allocate(const ModelContext&, std::int64_t count, std::int64_t low_rank);

    /// basis(i) <- the basis of gradients[i] (leading_basis()). The host waits once. Returns how many columns
    /// of each are still those of its old basis: all of them, if nothing could be solved. Collective.
    std::vector<std::int64_t> solve(std::span<const WholeGradient> gradients);
    /// The basis of the i-th gradient of the last solve() as (whole dimension with padding, r), on all ranks.
    TallMatrix basis(std::int64_t i, const WholeGradient&) const;
    /// This rank's rows of it.
    Tensor local_basis(std::int64_t i, const WholeGradient&) const;
    /// Owned rows of gradients[i].projected <- this rank's part of their sum G Q. To be called after solve().
    void project(std::span<const WholeGradient> gradients) const;

    /// Bytes that this rank sends in solve().
    double solve_bytes(std::span<const WholeGradient>) const;
    /// Host memory of a rank that solves `solved` of a step's gradients, on `threads` threads at a time.
    double host_bytes(std::int64_t solved, int threads) const;

  private:
    struct Work;
    Work work() const;
    int parts(const WholeGradient& x) const { return x.cut ? topology_->tp_size() : 1; }
    /// Of the whole projected dimension; padding is at the end.
    std::int64_t padded(const WholeGradient& x) const { return parts(x) * x.values.dim(1); }
    TallMatrix rows_of(const WholeGradient& x) const { return {x.values, &topology_->dp}; }
    /// The rows of those owned by this data-parallel rank of which tp rank `p` forms the Gram matrix.
    kernels::Rows share(const WholeGradient&, int p) const;
    std::vector<Tensor> shared_rows(const WholeGradient&, const Work&) const;
    void add_gram(const WholeGradient&, const Work&, Tensor gram) const;
    /// to (padded, r) f64 <- the whole old basis.
    void collect_basis(const WholeGradient&, const Work&, Tensor to) const;
    void distribute(std::span<const WholeGradient>) const;
    /// Elements of a Gram matrix with its basis.
    std::int64_t problem() const { return width_ * (width_ + low_rank_); }

    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    TallMatrices* tall_ = nullptr;
    DType dtype_ = DType::f32, wide_ = DType::f32;
    std::int64_t count_ = 0, low_rank_ = 0;
    std::int64_t width_ = 0, kept_ = 0;         // the largest padded(); the most rows of a gradient
    std::int64_t received_ = 0, gathered_ = 0;  // elements of the largest exchange over tp and old basis
    Tensor bases_;                              // (count, width r) compute type
    Tensor scratch_;                            // bytes, shared
    std::vector<double> host_;
};

}  // namespace switchyard
