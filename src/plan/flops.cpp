// Linears and their adapters give their own cost (Linear::cost); the rest of the model is counted here.
#include "plan/flops.hpp"

#include "kernels/matmul.hpp"

namespace switchyard {

Flops flops_per_token(const FlopsModel& model) {
    Flops flops;
    for (const LinearCost& x : model.linears) {
        flops.dense += 6 * x.weights;
        flops.executed += x.cost.forward + x.cost.backward + (x.recomputed ? x.cost.forward : 0);
        flops.executed += (x.merges_per_step * x.cost.merge + x.cost.step) / model.tokens_per_step;
    }
    flops.executed += model.update / model.tokens_per_step;
    const double head = 6 * model.vocab_size * model.hidden_size;
    const double attention =
        4 * model.attention_width * model.seq_len;  // forward of one layer, without a mask
    flops.dense += head + 3 * attention * model.num_layers;
    flops.executed +=
        head + attention / 2 * (3 * model.num_layers + model.recomputed_layers + model.shadow_layers);
    return flops;
}

double peak_flops(const RunConfig& run) {
    return run.peak_flops > 0 ? run.peak_flops : kernels::measure_peak_flops(dtype_from_name(run.dtype));
}

}  // namespace switchyard
