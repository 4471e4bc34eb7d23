// A linear costs two operations per weight and token forward, four backward where it is trained.
#include "plan/flops.hpp"

namespace switchyard {

Flops flops_per_token(const FlopsModel& model) {
    Flops flops;
    for (const LinearShape& x : model.linears) {
        const double mn = static_cast<double>(x.out) * static_cast<double>(x.in);
        const double factors = static_cast<double>(x.low_rank) * static_cast<double>(x.out + x.in);
        flops.dense += 6 * mn;
        double forward = 2 * mn, backward = 4 * mn;
        if (x.low_rank > 0) {
            // Backward: x A' and dY B (2 factors' worth together) and both gradients (2 more), merged or not.
            // Unmerged, y and d_x take one product with B and A more, and forward forms x A' itself.
            backward = 2 * mn + 4 * factors;
            if (!x.merged) {
                forward += 2 * factors;
                backward += 2 * static_cast<double>(x.low_rank) * static_cast<double>(x.in);
            }
        }
        flops.executed += forward + backward + (x.recomputed ? forward : 0);
        flops.executed +=
            x.merges_per_step * 2 * mn * static_cast<double>(x.low_rank) / model.tokens_per_step;
    }
    const double head = 6 * model.vocab_size * model.hidden_size;
    const double attention =
        4 * model.attention_width * model.seq_len;  // one layer's forward, without a mask
    flops.dense += head + 3 * attention * model.num_layers;
    flops.executed += head + attention / 2 * (3 * model.num_layers + model.recomputed_layers);
    return flops;
}

}  // namespace switchyard
