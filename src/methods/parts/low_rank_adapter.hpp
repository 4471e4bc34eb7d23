// LowRankAdapter: y = x (W + s B A)' with W frozen (Hu et al. 2021). Its Strategy says in which order
// products are formed.
#pragma once

#include <functional>

#include "methods/parts/low_rank_products.hpp"
#include "methods/parts/strategy.hpp"

namespace switchyard {

/// How factors lie in memory; files always have A (r, in) and B (out, r). slots: A (r, in) and B' (r, out): a
/// row, which has one owner, is a slot. long_rows: A' (in, r) and B (out, r): the owner of a row has one
/// element of every slot, for methods that mix slots (preconditioners).
enum class FactorLayout { slots, long_rows };

class LowRankAdapter : public Adapter {
  public:
    /// A pair for one linear, by itself.
    LowRankAdapter(const ModelContext&, const Linear&, std::int64_t low_rank, double scale,
                   FactorLayout = FactorLayout::slots);
    /// A pair in slots whose A and its gradient (r, in padded) are rows of tensors of a group.
    LowRankAdapter(const ModelContext&, const Linear&, Tensor a, Tensor d_a, double scale, Strategy);

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
    std::int64_t low_rank() const { return low_rank_; }
    FactorLayout layout() const { return layout_; }
    /// The factor <- values that `fill` puts into a tensor whose rows are slots, (r, width): the factor
    /// itself or shared memory.
    void fill_slots(Parameter& factor, const std::function<void(Tensor slots)>& fill);

    /// Sum over the micro-batches of a step of dY' x, (out padded, in padded) in accumulate type; empty but
    /// under Strategy::weight_gradient. To be zeroed before a step.
    Tensor weight_gradient() const { return weight_gradient_; }
    /// Adds what weight_gradient() contributes to the gradients of A and B, once a step.
    void gradients_from_weight();

    /// W -= s B A on the stored base. The order of each element's sum is fixed, so the bits are the same on
    /// every layout.
    void subtract_from_base(Linear&);

  private:
    struct Factors {
        Tensor a, d_a, b, d_b;
    };
    LowRankAdapter(const ModelContext&, const Linear&, const Factors&, double scale, Strategy, FactorLayout);
    static Factors take_factors(const ModelContext&, const Linear&, std::int64_t low_rank, FactorLayout);
    void take_scratch(const ModelContext&, const Linear&);

    double scale_;
    Strategy strategy_;
    FactorLayout layout_;
    std::int64_t low_rank_;
    double replicas_;  // data-parallel ranks
    Parameter a_, b_;
    Tensor weight_gradient_;
    std::unique_ptr<SharedProducts> products_;  // of this pair alone
    /// In one piece of shared memory: under long_rows A (r, in) and B' (r, out), otherwise nothing; then the
    /// work space of merge() or that of subtract_from_base(), (rows kept, in).
    Tensor slots_a_, slots_b_, merge_scratch_, full_precision_;
    Tensor wide_a_, wide_b_;  // A and B in accumulate type where that is another, shared
    bool measuring_;          // there is no memory
};

/// A pair for each linear of a group, and their shared products.
struct SharedPairs {
    std::vector<std::unique_ptr<LowRankAdapter>> pairs;
    std::unique_ptr<SharedProducts> products;
};
SharedPairs make_shared_pairs(const ModelContext&, std::span<const Linear>, std::int64_t low_rank,
                              double scale);

}  // namespace switchyard
