// Shapes are those of this rank, with padding, for the choice; costs are over all ranks and without it.
#include "methods/parts/strategy.hpp"

#include "config/option_table.hpp"

namespace switchyard {

bool merging_pays(std::span<const Linear> linears, std::int64_t tokens_per_step) {
    std::int64_t spent = 0, saved = 0;
    for (const Linear& linear : linears) {
        const std::int64_t m = linear.out().padded, n = linear.in().padded;
        spent += m * n;
        saved += (m + n) * tokens_per_step;
    }
    return saved > spent;
}

Strategy strategy_of(const ModelContext& context, std::span<const Linear> linears) {
    const MethodConfig& method = context.config.method;
    const std::string& asked =
        method.options.contains("strategy") ? option_text(method, "strategy") : "auto";
    if (asked == "unmerged") return Strategy::unmerged;
    if (asked == "merged") return Strategy::merged;
    if (asked == "weight_gradient") return Strategy::weight_gradient;
    const std::int64_t tokens =
        context.config.data.global_batch / context.topology.dp_size() * context.seq_len;
    return merging_pays(linears, tokens) ? Strategy::merged : Strategy::unmerged;
}

Cost cost_of(Strategy strategy, double m, double n, double r, double replicas) {
    const double dense = 2 * m * n, factors = r * (m + n);
    // Backward has x A' and dY B (2 * factors together) and both gradients (2 more), merged or not. Unmerged,
    // y and d_x need one more product with B and A each, and forward computes x A' itself.
    switch (strategy) {
        case Strategy::unmerged:
            return {.forward = dense + 2 * factors, .backward = dense + 4 * factors + 2 * r * n};
        case Strategy::merged:
            return {.forward = dense, .backward = dense + 4 * factors, .merge = dense * r};
        case Strategy::weight_gradient:
            break;
    }
    return {.forward = dense, .backward = 2 * dense, .merge = dense * r, .step = 2 * dense * r * replicas};
}

Cost cost_of_merged(const Linear& linear, std::int64_t low_rank) {
    return cost_of(Strategy::merged, static_cast<double>(linear.out().size),
                   static_cast<double>(linear.in().size), static_cast<double>(low_rank), 1);
}

}  // namespace switchyard
