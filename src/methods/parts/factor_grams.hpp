// FactorGrams: the Gram matrices A A' and B' B of the pairs of all linears, in f64, from factors that lie by
// long rows (FactorLayout::long_rows). One factor of each pair is cut over tp, and its Gram matrix is the sum
// over tp, in rank order; all tp and dp ranks have the same bits.
#pragma once

#include <vector>

#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {

class FactorGrams {
  public:
    void add(const Linear&, LowRankAdapter&);
    /// When all pairs have been added.
    void allocate(const ModelContext&);

    /// Which factor of each pair: the one that is cut over tp (B of a column-parallel linear, A of a
    /// row-parallel one), or the other.
    enum class Which { cut, whole };
    /// (pairs, r, r) f64 in the order of add(), where kernels may work until the next call.
    Tensor form(Which);
    /// The other factor of each pair, whose gradient has the tangent space of the first.
    Parameter& partner(std::int64_t pair, Which) const;

    std::int64_t num_pairs() const { return static_cast<std::int64_t>(pairs_.size()); }
    /// Bytes that this rank sends for the Gram matrices of both factors of all pairs.
    double bytes() const;
    /// Operations over all ranks for these.
    double operations() const;

  private:
    struct Pair {
        Parameter *cut = nullptr, *whole = nullptr;
        double cut_rows = 0, whole_rows = 0;  // of the whole factors
    };
    /// work(first, count) for groups of pairs that are summed together.
    template <class Work>
    void for_sums(const Work&) const;

    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    std::int64_t low_rank_ = 0, longest_ = 0;
    std::vector<Pair> pairs_;
    Tensor grams_, scratch_;  // f64; scratch_: of a sum over tp
    Tensor wide_;             // (longest factor, r) f64, shared
};

}  // namespace switchyard
