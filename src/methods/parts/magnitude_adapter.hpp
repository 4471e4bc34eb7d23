// MagnitudeAdapter: y = x (g o (W + s B A))' with W frozen and g_i = magnitude_i / c_i, c_i the norm of row i
// of V = W + s B A (DoRA, Liu et al. 2024, arXiv 2402.09353). The magnitude (m) is trained in f32 (f64);
// within a step c is a constant. Products run merged. Rows of a row-parallel V are cut over tp, and with
// parallel.shard_frozen a rank has some rows of W alone, so squared norms are summed by the method.
#pragma once

#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {

class MagnitudeAdapter : public LowRankAdapter {
  public:
    /// exact: the gradient of c is asked for.
    MagnitudeAdapter(const ModelContext&, const Linear&, std::int64_t low_rank, double scale, bool exact);

    std::vector<Parameter*> parameters() override { return {&a(), &b(), &magnitude_}; }
    Parameter& magnitude() { return magnitude_; }
    bool merged() const override { return true; }
    std::optional<kernels::EffectiveWeight> effective_weight() override;
    /// The gradients of B and magnitude lack the factors g and 1 / magnitude until close_gradients().
    void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) override;
    Cost cost(const Linear&) const override;

    /// (out local), accumulate type. norms(): c. sums(): sum over t of d_y y; only if `exact`.
    Tensor norms() const { return norms_; }
    Tensor sums() const { return sums_; }

    /// norms <- |row|^2 of this rank's part of those rows of V whose base it keeps, 0 for other rows. The
    /// norms of W, which never changes, are computed if `base_changed`. The method sums over ranks.
    void square_norms(const Linear&, bool base_changed);
    /// norms <- their roots.
    void take_roots();
    /// magnitude <- norms: the function is that of V.
    void magnitude_from_norms();
    /// g and g o B.
    void form_row_scale();

    /// Completes the gradients but for that of c; sums <- this rank's.
    void close_gradients();
    /// The gradient of c, when `sums` are summed over tp where rows are cut and over dp where W is: dV_i =
    /// -sums_i V_i / c_i^2, for the rows that this rank keeps.
    void add_norm_gradient(const Linear&);

  private:
    /// q (r, local), accumulate_type <- of_w A W' + of_product A A' B' of the rows kept here, and those
    /// columns of B'.
    struct Rows {
        Tensor q, b;
    };
    Rows rows_through_a(const Linear&, double of_w, double of_product);
    kernels::RowPart kept(const Linear&, Tensor factor) const;

    Parameter magnitude_;
    Tensor row_scale_;     // g (out local)
    Tensor scaled_b_;      // g o B, (r, out local), compute type
    Tensor weight_norms_;  // |row of W|^2 (rows kept)
    Tensor norms_, sums_;
    Tensor y_;       // (N, out local), shared
    Tensor wide_;    // accumulate type, shared: work space of rows_through_a()
    Tensor narrow_;  // compute type, shared: work space of add_norm_gradient()
    double norm_copies_ = 1;
    LowRankProducts scaled_products_;  // with g o B in place of B
};

}  // namespace switchyard
