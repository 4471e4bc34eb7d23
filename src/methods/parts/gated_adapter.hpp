// GatedAdapter: y = x (W + s B diag(gate) A)' with W frozen and a trained gate (r), in f32 (f64), beside A
// and B (SoRA, Ding et al. 2023, arXiv 2311.11696). Products run merged.
#pragma once

#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {

class GatedAdapter : public LowRankAdapter {
  public:
    GatedAdapter(const ModelContext&, const Linear&, std::int64_t low_rank, double scale);

    std::vector<Parameter*> parameters() override { return {&a(), &b(), &gate_}; }
    Parameter& gate() { return gate_; }
    bool merged() const override { return true; }
    std::optional<kernels::EffectiveWeight> effective_weight() override;
    Cost cost(const Linear&) const override;

    /// backward() leaves the gradients of A and B without the factor gate, and none of the gate: with G =
    /// d W_eff it is s B_k' G A_k = <B_k, dB_k without the factor>. Called once, when the sums over
    /// micro-batches are complete.
    void close_gradients();

  private:
    Parameter gate_;
};

}  // namespace switchyard
