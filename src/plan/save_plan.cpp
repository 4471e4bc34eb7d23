// Ranks own windows in turn, and replicas share those that they hold whole: hence the mean.
#include "plan/save_plan.hpp"

#include <algorithm>

#include "io/checkpoint/checkpoint_file.hpp"

namespace switchyard {

SavePlan plan_save(const Config& config, std::uint64_t checkpoint_bytes, int ranks) {
    const auto window = static_cast<std::uint64_t>(config.io.window), parts = std::uint64_t(ranks);
    const auto quotient = [](std::uint64_t a, std::uint64_t b) { return (a + b - 1) / b; };
    SavePlan plan;
    plan.bytes = checkpoint_bytes;
    plan.rank_bytes = quotient(checkpoint_bytes, parts);
    plan.rank_writes = quotient(quotient(checkpoint_bytes, window), parts);
    plan.longest_write = std::min(window, checkpoint_bytes);
    if (config.run.async_save) plan.memory = staged_bytes(checkpoint_bytes, ranks, window);
    return plan;
}

}  // namespace switchyard
