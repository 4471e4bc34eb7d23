// plan: what a configuration costs, without ranks and without memory.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "kernels/matmul.hpp"
#include "train/commands.hpp"
#include "train/plan.hpp"
#include "train/run_report.hpp"
#include "train/run_setup.hpp"

namespace switchyard {
namespace {

using nlohmann::ordered_json;

constexpr std::int64_t default_vocab_size = 32100;  // T5's tokenizer, as in the papers compared with

struct PlanRequest {
    Config config;
    int ranks = 1;
    std::int64_t steps = 0;
    double peak_flops = 0, network = 0;  // of all ranks, FLOP/s; B/s of one rank, 0: not given
};

struct Times {
    double products_s = 0, network_s = 0;
    double step_s() const { return products_s + network_s; }
};

Times times_of(const PlanRequest& request, const Plan& plan) {
    Times times;
    times.products_s = plan.flops_per_token.executed * plan.tokens_per_step / request.peak_flops;
    if (request.network > 0) times.network_s = total_bytes(plan.rank.mean()) / request.network;
    return times;
}

/// The same with parallel.shard_frozen the other way round.
Plan other_sharding(const PlanRequest& request) {
    Config config = request.config;
    config.parallel.shard_frozen = !config.parallel.shard_frozen;
    return make_plan(config, request.ranks, 0, request.steps);
}

ordered_json json_of(const PlanRequest& request, const Plan& plan) {
    const ParameterCounts& n = plan.parameters;
    ordered_json result;
    result["ranks"] = plan.ranks;
    result["dp"] = plan.dp;
    result["tp"] = plan.tp;
    result["parameters"] = {{"model", n.model()},   {"trainable", n.trainable()},      {"frozen", n.frozen},
                            {"factors", n.factors}, {"embedding", n.embedding},        {"head", n.head},
                            {"norms", n.norms},     {"dense_linears", n.dense_linears}};
    result["linears"] = {{"merged", plan.merged_linears}, {"unmerged", plan.unmerged_linears}};
    result["memory"] = switchyard::json_of(plan.rank.memory);
    result["largest_memory"] = switchyard::json_of(plan.largest_memory);
    result["bytes_mean"] = switchyard::json_of(plan.rank.mean());
    ordered_json steps = ordered_json::array();
    for (const Traffic& step : plan.rank.steps) steps.push_back(switchyard::json_of(step));
    result["bytes_by_step"] = steps;
    result["tokens_per_step"] = plan.tokens_per_step;
    result["flops_per_step"] = {{"dense", plan.flops_per_token.dense * plan.tokens_per_step},
                                {"executed", plan.flops_per_token.executed * plan.tokens_per_step}};
    const Times times = times_of(request, plan);
    result["step_s"] = {{"products", times.products_s}, {"network", times.network_s}};
    result["checkpoint_bytes"] = plan.checkpoint_bytes;
    result["notes"] = plan.notes;
    return result;
}

std::string two(const std::string& name, const std::string& rank, const std::string& largest) {
    return fmt::format("  {:<28} {:>14} {:>14}\n", name, rank, largest);
}

void print_sharding(const PlanRequest& request, const Plan& plan) {
    if (plan.dp == 1 || plan.parameters.frozen == 0) return;
    const Plan other = other_sharding(request);
    const bool sharded = request.config.parallel.shard_frozen;
    const Plan &on = sharded ? plan : other, &off = sharded ? other : plan;
    fmt::print("\n  parallel.shard_frozen                 true          false\n");
    fmt::print("{}", two("memory, most of a rank", bytes_text(on.largest_memory.total()),
                         bytes_text(off.largest_memory.total())));
    fmt::print("{}", two("sent a step by a rank", bytes_text(total_bytes(on.rank.mean())),
                         bytes_text(total_bytes(off.rank.mean()))));
}

void print(const PlanRequest& request, const Plan& plan) {
    for (const std::string& line :
         start_lines(request.config, plan, kernels::num_threads(), request.peak_flops))
        fmt::print("{}\n", line);
    fmt::print("\n{}", two("memory of a rank", "rank 0", "largest"));
    for (int c = 0; c < num_memory_classes; ++c)
        if (plan.largest_memory.bytes[c] > 0)
            fmt::print("{}", two(name_of(static_cast<MemoryClass>(c)), bytes_text(plan.rank.memory.bytes[c]),
                                 bytes_text(plan.largest_memory.bytes[c])));
    fmt::print("{}",
               two("all", bytes_text(plan.rank.memory.total()), bytes_text(plan.largest_memory.total())));
    const Traffic mean = plan.rank.mean();
    fmt::print("\n  sent a step by rank 0, mean of the first {} steps\n", plan.rank.steps.size());
    for (int g = 0; g < num_traffic_groups; ++g)
        if (mean.bytes[g] > 0)
            fmt::print("{}", two(name_of(static_cast<TrafficGroup>(g)), bytes_text(mean.bytes[g]), ""));
    fmt::print("{}", two("all", bytes_text(total_bytes(mean)), ""));
    print_sharding(request, plan);
    const Times times = times_of(request, plan);
    fmt::print("\n  time of a step: at least {} in matrix products at the rate measured here",
               duration_text(times.products_s));
    if (request.network > 0)
        fmt::print(", {} on the network if nothing overlaps", duration_text(times.network_s));
    fmt::print("\n  run: {} steps, at least {}\n", request.config.run.steps,
               duration_text(times.step_s() * static_cast<double>(request.config.run.steps)));
    if (plan.ranks_looked_at < plan.ranks)
        fmt::print("  (largest of {} ranks looked at)\n", plan.ranks_looked_at);
}

}  // namespace

std::vector<CommandOption> plan_options() {
    return {{"ranks", "N", "plan for so many ranks (default: those it is started on)"},
            {"steps", "100", "steps over which bytes are averaged"},
            {"network", "GB/s", "bandwidth of one rank, for the time of a step"},
            {"json", "", "for programs: everything, bytes of each step included"}};
}

int run_plan(const CommandContext& context, const Arguments& arguments) {
    PlanRequest request;
    request.config = read_configuration(context.world, arguments.files, arguments.settings);
    request.ranks = static_cast<int>(arguments.integer("ranks", context.world.size(), 1, 1 << 24));
    Config& config = request.config;
    if (config.model.vocab_size == 0 && config.data.tokens.empty())
        config.model.vocab_size = default_vocab_size;
    if (config.model.vocab_size == 0) open_tokens(context.world, config);
    resolve_method_options(config);
    validate(config, request.ranks);
    request.steps = std::min(arguments.integer("steps", max_planned_steps, 1, 1000000), config.run.steps);
    request.network = arguments.real("network", 0, 0, 1e9) * 1e9;
    if (context.world.rank() != 0) return 0;
    request.peak_flops = kernels::measure_peak_flops(dtype_from_name(config.run.dtype)) * request.ranks;
    const Plan plan = make_plan(config, request.ranks, 0, request.steps);
    if (arguments.has("json"))
        fmt::print("{}\n", json_of(request, plan).dump(2));
    else
        print(request, plan);
    return 0;
}

}  // namespace switchyard
