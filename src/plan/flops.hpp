// The operations of a step, computed from counts and shapes (design section 9). A multiply-add counts as two.
#pragma once

#include <cstdint>
#include <vector>

#include "config/config.hpp"
#include "model/adapter.hpp"

namespace switchyard {

/// Numbers of values in the whole model, over all ranks and without padding.
struct ParameterCounts {
    std::int64_t embedding = 0, head = 0, norms = 0, dense_linears = 0, factors = 0, frozen = 0;
    std::int64_t trainable() const { return embedding + head + norms + dense_linears + factors; }
    /// Without low-rank factors, which belong to the method.
    std::int64_t model() const { return embedding + head + norms + dense_linears + frozen; }
};

/// One linear of a block.
struct LinearCost {
    double weights = 0;  // out x in
    Cost cost;
    bool recomputed = false;     // backward computes its output again (model.recompute)
    double merges_per_step = 0;  // how often its whole effective weight is formed, over all ranks
};

struct FlopsModel {
    std::vector<LinearCost> linears;
    double num_layers = 0, attention_width = 0;  // attention_width: H D
    double hidden_size = 0, vocab_size = 0, seq_len = 0;
    double recomputed_layers = 0;
    double shadow_layers = 0;  // forward passes of layers of a shadow (model/shadow.hpp)
    double tokens_per_step = 0;
    double update = 0;  // products of the method's update, in a step
};

/// Per token of a training step. dense: 6 N + 12 L H D T, where N is the number of values in matrix products,
/// as if every weight had a gradient and attention were not causal (Chowdhery et al. 2022, appendix B).
/// executed: what this method needs. Frozen weights need no weight gradient; low-rank factors cost 6 r (m +
/// n) + 2 r n or, merged, 4 r (m + n) and 2 m n r each time that a merged copy is formed; attention costs
/// half, because of its mask; recomputation, a shadow's forward pass and products of the update are included.
struct Flops {
    double dense = 0, executed = 0;
};
Flops flops_per_token(const FlopsModel&);

/// FLOP/s of this rank that utilisation refers to: run.peak_flops, or measured now.
double peak_flops(const RunConfig&);

}  // namespace switchyard
