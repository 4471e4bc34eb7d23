// Each alternative is planned like the run itself, over the same steps.
#include "plan/alternatives.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "config/option_table.hpp"
#include "core/error.hpp"
#include "methods/registry.hpp"

namespace switchyard {
namespace {

struct Change {
    std::string key, value;
};

std::vector<Change> changes(const Config& config) {
    const auto other = [](bool now) { return now ? "false" : "true"; };
    const int tp = config.parallel.tp;
    const std::int64_t size = config.data.micro_batch;
    std::vector<Change> all{
        {"parallel.shard_frozen", other(config.parallel.shard_frozen)},
        {"model.recompute", other(config.model.recompute)},
        {"parallel.tp", std::to_string(2 * tp)},
        {"data.micro_batch", std::to_string(2 * size)},
        {"optim.gradient_dtype", config.optim.gradient_dtype == "f32" ? "bf16" : "f32"},
        {"optim.state_bits", config.optim.state_bits == "32" ? "8" : "32"},
    };
    if (tp % 2 == 0) all.push_back({"parallel.tp", std::to_string(tp / 2)});
    if (size % 2 == 0) all.push_back({"data.micro_batch", std::to_string(size / 2)});
    for (const MethodOptions& method : method_options())
        for (const MethodOption& option : method.options)
            for (const std::string& choice : option.choices)
                if (method.name == config.method.name) all.push_back({"method." + option.key, choice});
    return all;
}

bool same(double a, double b) {
    return std::abs(a - b) < 1e-3 * std::max(a, b);
}

}  // namespace

Alternative as_planned(const Plan& plan) {
    return {"", plan.largest_memory.total(), total_bytes(plan.rank.mean()),
            plan.flops_per_token.executed * plan.tokens_per_step};
}

std::vector<Alternative> alternatives(const Config& config, const Plan& plan) {
    const Alternative now = as_planned(plan);
    const std::string text = config_text(config, method_options());
    std::vector<Alternative> all;
    for (const Change& change : changes(config)) {
        Alternative found;
        try {
            const std::string argument = fmt::format("--{}={}", change.key, change.value);
            const Config other = parse_config(text, "", {argument}, method_options()).config;
            validate_run(other, plan.ranks);
            found = as_planned(
                make_plan(other, plan.ranks, 0, static_cast<std::int64_t>(plan.rank.steps.size())));
        } catch (const UserError&) {
            continue;  // does not fit these ranks or this method
        }
        found.setting = fmt::format("{} = {}", change.key, change.value);
        const bool differs = !same(found.memory_bytes, now.memory_bytes) ||
                             !same(found.sent_bytes, now.sent_bytes) || !same(found.flops, now.flops);
        if (differs) all.push_back(found);
    }
    std::stable_sort(all.begin(), all.end(), [](const Alternative& a, const Alternative& b) {
        return a.memory_bytes < b.memory_bytes;
    });
    return all;
}

}  // namespace switchyard
