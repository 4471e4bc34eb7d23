// LowRankAdapter: y = x (W + s B A)' with W frozen (Hu et al. 2021), A (r, in), and B stored transposed (r,
// out), so that a slot is a row of both. Products run merged or unmerged (RunLoRA, Cherniuk et al. 2023), as
// a cost model of the shapes decides.
#pragma once

#include "methods/parts/low_rank_products.hpp"

namespace switchyard {

class LowRankAdapter : public Adapter {
  public:
    /// A pair for one linear, by itself.
    LowRankAdapter(const ModelContext&, const Linear&, std::int64_t low_rank, double scale);
    /// A pair whose A and its gradient (r, in padded) are rows of tensors of a group.
    LowRankAdapter(const ModelContext&, const Linear&, Tensor a, Tensor d_a, double scale, bool merged);

    void forward(const Linear&, Tensor x, Tensor y) override;
    void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) override;
    std::optional<kernels::EffectiveWeight> effective_weight() override;
    bool merged() const override { return merged_; }
    void merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out) override;
    Cost cost(const Linear&) const override;
    std::vector<Parameter*> parameters() override { return {&a_, &b_}; }

    Parameter& a() { return a_; }
    Parameter& b() { return b_; }
    double scale() const { return scale_; }
    std::int64_t low_rank() const { return a_.value.dim(0); }

    /// W -= s B A on the stored base. The order of each element's sum is fixed, so the bits are the same on
    /// every layout.
    void subtract_from_base(Linear&);

  private:
    double scale_;
    bool merged_;
    Parameter a_, b_;
    LowRankProducts products_;  // of this pair alone
    Tensor merge_scratch_;      // shared
    Tensor full_precision_;     // (rows kept, in), shared: work space of subtract_from_base()
};

/// A pair for each linear of a group, and their shared products.
struct SharedPairs {
    std::vector<std::unique_ptr<LowRankAdapter>> pairs;
    std::unique_ptr<SharedProducts> products;
};
SharedPairs make_shared_pairs(const ModelContext&, std::span<const Linear>, std::int64_t low_rank,
                              double scale);

/// True if merging, 2 m n r operations for each linear of a group, costs less than it saves, 2 r (m + n) t
/// each for the t tokens of a step.
bool merging_pays(std::span<const Linear>, std::int64_t tokens_per_step);

}  // namespace switchyard
