// LowRankAdapter: y = x (W + s B A)' with W frozen (Hu et al. 2021), A (r, in), and B stored transposed (r,
// out), so that a slot is a row of both. Its Strategy says in which order products are formed.
#pragma once

#include "methods/parts/low_rank_products.hpp"
#include "methods/parts/strategy.hpp"

namespace switchyard {

class LowRankAdapter : public Adapter {
  public:
    /// A pair for one linear, by itself.
    LowRankAdapter(const ModelContext&, const Linear&, std::int64_t low_rank, double scale);
    /// A pair whose A and its gradient (r, in padded) are rows of tensors of a group.
    LowRankAdapter(const ModelContext&, const Linear&, Tensor a, Tensor d_a, double scale,
                   Strategy);

    void forward(const Linear&, Tensor x, Tensor y) override;
    void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) override;
    std::optional<kernels::EffectiveWeight> effective_weight() override;
    bool merged() const override { return strategy_ != Strategy::unmerged; }
    void merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out) override;
    Cost cost(const Linear&) const override;
    std::vector<Parameter*> parameters() override { return {&a_, &b_}; }

    Parameter& a() { return a_; }
    Parameter& b() { return b_; }
    double scale() const { return scale_; }
    std::int64_t low_rank() const { return a_.value.dim(0); }

    /// Sum over the micro-batches of a step of dY' x, (out padded, in padded) in accumulate type; empty but
    /// under Strategy::weight_gradient. To be zeroed before a step.
    Tensor weight_gradient() const { return weight_gradient_; }
    /// Adds what weight_gradient() contributes to the gradients of A and B, once a step.
    void gradients_from_weight();

    /// W -= s B A on the stored base. The order of each element's sum is fixed, so the bits are the same on
    /// every layout.
    void subtract_from_base(Linear&);

  private:
    double scale_;
    Strategy strategy_;
    double replicas_;  // data-parallel ranks
    Parameter a_, b_;
    Tensor weight_gradient_;
    LowRankProducts products_;  // of this pair alone
    Tensor merge_scratch_;      // shared
    Tensor full_precision_;     // (rows kept, in), shared: work space of subtract_from_base()
    Tensor wide_a_, wide_b_;    // A and B in accumulate type where that is another, shared
};

/// A pair for each linear of a group, and their shared products.
struct SharedPairs {
    std::vector<std::unique_ptr<LowRankAdapter>> pairs;
    std::unique_ptr<SharedProducts> products;
};
SharedPairs make_shared_pairs(const ModelContext&, std::span<const Linear>, std::int64_t low_rank,
                              double scale);

}  // namespace switchyard
