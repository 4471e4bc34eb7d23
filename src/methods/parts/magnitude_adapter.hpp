// MagnitudeAdapter: y = x (g o (W + s B A))' with W frozen and g_i = magnitude_i / c_i, c_i the norm of row i
// of V = W + s B A (DoRA, Liu et al. 2024, arXiv 2402.09353). The magnitude (m) is trained in f32 (f64);
// within a step c is a constant. Products run merged.
#pragma once

#include "methods/parts/row_norms.hpp"

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

    /// c.
    RowNorms& norms() { return norms_; }
    /// (out local), accumulate type: sum over t of d_y y; only if `exact`.
    Tensor sums() const { return sums_; }
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
    Parameter magnitude_;
    Tensor row_scale_;     // g (out local)
    Tensor scaled_b_;      // g o B, (r, out local), compute type
    RowNorms norms_;
    Tensor sums_;
    Tensor y_;       // (N, out local), shared
    Tensor narrow_;  // compute type, shared: work space of add_norm_gradient()
    LowRankProducts scaled_products_;  // with g o B in place of B
};

}  // namespace switchyard
