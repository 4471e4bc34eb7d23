// DistilledAdapter: y = x (base W + s B A)' + C with W frozen, a factor `base` of the method and a trained
// bias C (m), in f32 (f64), or none; and a loss on y, its squared distance from the output of the model's
// shadow (PC-LoRA, Hwang et al. 2024, arXiv 2406.09117). Products run unmerged: where base is 0 those with W
// are left out.
#pragma once

#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {

class DistilledAdapter : public LowRankAdapter {
  public:
    /// base_share: the part of a run's steps in which base is not 0, for the cost.
    DistilledAdapter(const ModelContext&, const Linear&, std::int64_t low_rank, double scale, bool bias,
                     double base_share);

    std::vector<Parameter*> parameters() override;
    Parameter& bias_parameter() { return bias_; }
    bool merged() const override { return false; }
    std::optional<kernels::EffectiveWeight> effective_weight() override;
    Tensor bias() override { return bias_.value; }
    Cost cost(const Linear&) const override;

    void forward(const Linear&, Tensor x, Tensor y) override;
    void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) override;
    void on_shadow_output(const Linear&, Tensor y) override;
    void on_output(const Linear&, Tensor y) override;

    void set_base(double base);
    /// The loss is weight * |y - y of the shadow|^2 (sum of squares over tokens and the outputs of this
    /// rank). It is added to the step's sum, and its gradient is in `differences` (N, out local) from
    /// on_output() to backward(). `counted`: the part of the loss that this rank adds, because others have
    /// the same y.
    struct Loss {
        Tensor differences;
        double weight = 0, counted = 1;
    };
    void set_loss(const Loss& loss) { loss_ = loss; }
    /// The sum of a step; before its first micro-batch.
    void set_sum(Tensor sum) { sum_ = sum; }
    /// A block that is recomputed has the same outputs again: a loss counts once a micro-batch.
    void begin_micro_batch() { counted_ = false; }

  private:
    double base_share_, base_ = 1;
    Parameter bias_;
    LowRankProducts products_;
    Loss loss_;
    Tensor sum_;
    bool shadow_seen_ = false;  // `differences` holds an output of the shadow
    bool counted_ = false;
};

}  // namespace switchyard
