// Coordinates: gradients of factors projected onto the span of the partner. For both factors of all pairs, by
// long rows and as they are before the step, with a factor Q (L, r) as the partner of F:
//   S = (Q' Q + damping I)^-1, coordinates g = dF S, and the map T = Q_old' Q S: the moment with the old
//   coordinates m, projected onto the new span, has the coordinates m T.
// Where Q has not moved, Q_old' Q is its Gram matrix, so only that of the factor that moved last is kept.
#pragma once

#include <array>

#include "io/checkpoint/state_io.hpp"
#include "kernels/cholesky.hpp"
#include "methods/parts/cholesky_defects.hpp"
#include "methods/parts/factor_grams.hpp"

namespace switchyard {

/// A factor of a pair. What is kept for both factors of all pairs lies in tensors (2 pairs, ...), A first.
enum Side : int { of_a = 0, of_b = 1 };
constexpr Side other(Side side) {
    return side == of_a ? of_b : of_a;
}

class Coordinates {
  public:
    /// Dampings of the update of A, which is that of B' B, and of B.
    Coordinates(std::int64_t low_rank, double damping_a, double damping_b)
        : low_rank_(low_rank), damping_{damping_a, damping_b} {}
    void add(const Linear&, LowRankAdapter&);
    /// When all pairs have been added.
    void allocate(const ModelContext&, kernels::StepScalars&);
    void initialise() const;

    /// Forms gram(), divisor() and map(); `moved`: the side that the last step moved. gradients (2 pairs),
    /// the owned rows of each factor's gradient <- their coordinates. Collective.
    void form(Side moved, std::span<const kernels::RowPart> gradients);
    /// (r, r) f64, the same on all ranks: of the partner of the factor on `side`, Q' Q; U with U' U = S^-1,
    /// for solve_rows(); and T.
    Tensor gram(std::int64_t pair, Side side) const { return square(grams_, pair, side); }
    Tensor divisor(std::int64_t pair, Side side) const { return square(divisors_, pair, side); }
    Tensor map(std::int64_t pair, Side side) const { return square(maps_, pair, side); }
    /// (r, r) f64: F_old' F of the factor that moved last; to be set to the part of this rank's rows.
    Tensor overlap(std::int64_t pair) const {
        return overlaps_.rows(pair, 1).reshape({low_rank_, low_rank_});
    }
    /// When all overlaps are set. Collective.
    void sum_overlaps() const;
    void visit_state(StateIo&) const;

    /// Throws, on all ranks, if the last form() did not find an S. Coordinates may then be NaN.
    void judge(std::span<const double> scalars) const;

    /// Bytes that this rank sends for form() and sum_overlaps().
    double bytes() const;
    /// Operations of form(), over all ranks, without what is for each owned row.
    double operations() const;

  private:
    std::int64_t count() const { return static_cast<std::int64_t>(linears_.size()); }
    Tensor square(Tensor of_all, std::int64_t pair, Side side) const {
        return of_all.rows(side * count() + pair, 1).reshape({low_rank_, low_rank_});
    }
    Tensor of_side(Tensor of_all, Side side) const { return of_all.rows(side * count(), count()); }
    void form_grams();

    std::int64_t low_rank_;
    std::array<double, 2> damping_;
    std::vector<const Linear*> linears_;
    std::vector<const Parameter*> a_;
    FactorGrams products_;
    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    Tensor grams_, divisors_, maps_;  // (2 pairs, r, r) f64, by the side of F
    Tensor overlaps_;                 // (pairs, r, r) f64
    Tensor scratch_;                  // of their sum, shared
    CholeskyDefects defects_;
    std::vector<kernels::DividedRows> divided_;
};

}  // namespace switchyard
