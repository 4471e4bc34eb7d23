// plan: the cost of a configuration, computed without the ranks and without the memory of the run.
#include "plan/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "comm/collectives.hpp"
#include "commands/commands.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "core/processor.hpp"
#include "core/units.hpp"
#include "kernels/matmul.hpp"
#include "plan/alternatives.hpp"
#include "plan/save_plan.hpp"
#include "run/inputs.hpp"
#include "run/report.hpp"

namespace switchyard {
namespace {

using nlohmann::ordered_json;

struct PlanRequest {
    Config config;
    int ranks = 1;
    std::int64_t steps = 0;
    double peak_flops = 0, network = 0;  // FLOP/s of all ranks together; B/s of one rank; 0: not given
    double disk = 0;                     // of the file system, for all ranks together, B/s
};

struct Times {
    double products_s = 0, network_s = 0;
    double step_s() const { return products_s + network_s; }
};

Times times_of(const PlanRequest& request, const Plan& plan) {
    Times times;
    if (request.peak_flops > 0)
        times.products_s = plan.flops_per_token.executed * plan.tokens_per_step / request.peak_flops;
    if (request.network > 0) times.network_s = total_bytes(plan.rank.mean()) / request.network;
    return times;
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
    result["rates"] = {{"lr", request.config.optim.lr}, {"dense_lr", request.config.optim.dense_lr}};
    result["memory"] = switchyard::json_of(plan.rank.memory);
    result["largest_memory"] = switchyard::json_of(plan.largest_memory);
    result["pinned_memory"] = static_cast<std::int64_t>(plan.pinned_bytes);
    result["bytes_mean"] = switchyard::json_of(plan.rank.mean());
    ordered_json steps = ordered_json::array();
    for (const Traffic& step : plan.rank.steps) steps.push_back(switchyard::json_of(step));
    result["bytes_by_step"] = steps;
    result["tokens_per_step"] = plan.tokens_per_step;
    result["flops_per_step"] = {{"dense", plan.flops_per_token.dense * plan.tokens_per_step},
                                {"executed", plan.flops_per_token.executed * plan.tokens_per_step}};
    const Times times = times_of(request, plan);
    result["step_s"] = {
        {"products", request.peak_flops > 0 ? ordered_json(times.products_s) : ordered_json()},
        {"network", times.network_s}};
    result["checkpoint_bytes"] = plan.checkpoint_bytes;
    const SavePlan save = plan_save(request.config, plan.checkpoint_bytes, plan.ranks);
    result["save"] = {{"rank_bytes", save.rank_bytes},
                      {"rank_writes", save.rank_writes},
                      {"longest_write", save.longest_write},
                      {"memory", save.memory},
                      {"seconds", save.seconds(request.disk)}};
    result["notes"] = plan.notes;
    return result;
}

std::string meaning(MemoryClass c) {
    static const char* const texts[] = {"frozen weights in full precision",
                                        "copies of frozen weights (merged or gathered)",
                                        "inactive candidates",
                                        "trained values, compute type",
                                        "gradients of everything trained, before reduction",
                                        "masters and moments of what this rank owns",
                                        "activations of one micro-batch",
                                        "buffers of kernels and messages"};
    static_assert(std::size(texts) == num_memory_classes);
    return texts[static_cast<int>(c)];
}

std::string meaning(TrafficGroup g) {
    static const char* const texts[] = {"sums over tp, two per half-block and micro-batch",
                                        "statistics of the cross-entropy over tp",
                                        "gradients on their way to the owners",
                                        "updated values, from the owners",
                                        "candidates that a switch brings in, from their homes",
                                        "states of shards that change owner",
                                        "weights gathered over dp, about twice per block and micro-batch",
                                        "micro-batches, read once and sent within tp",
                                        "sums and vectors of a method's own"};
    static_assert(std::size(texts) == num_traffic_groups);
    return texts[static_cast<int>(g)];
}

template <class Part>
void print_parts(const double* bytes, int count, double all) {
    for (int i = 0; i < count; ++i)
        if (bytes[i] > 0)
            print_result("  {:<14}{:>10}{:>7}  {}\n", name_of(static_cast<Part>(i)), bytes_text(bytes[i]),
                         fmt::format("{:.1f} %", 100 * bytes[i] / all), meaning(static_cast<Part>(i)));
    print_result("  {:<14}{:>10}\n", "all", bytes_text(all));
}

void print_alternatives(const Config& config, const Plan& plan) {
    print_result("\none change at a time                  memory   sent a step    operations\n");
    const auto line = [](const Alternative& x) {
        print_result("  {:<32}{:>10}{:>14}{:>14}\n", x.setting, bytes_text(x.memory_bytes),
                     bytes_text(x.sent_bytes), count_text(x.flops) + "FLOP");
    };
    Alternative now = as_planned(plan);
    now.setting = "as planned";
    line(now);
    for (const Alternative& other : alternatives(config, plan)) line(other);
}

void print_save(const PlanRequest& request, const Plan& plan) {
    const SavePlan save = plan_save(request.config, plan.checkpoint_bytes, plan.ranks);
    print_result("\ncheckpoint: {}, written in {} at {}B/s (all ranks together)\n", bytes_text(save.bytes),
                 duration_text(save.seconds(request.disk)), count_text(request.disk));
    print_result("  {:<14}{:>10}  in about {} write{} of up to {}\n", "a rank writes",
                 bytes_text(save.rank_bytes), save.rank_writes, save.rank_writes == 1 ? "" : "s",
                 bytes_text(save.longest_write));
    if (save.memory > 0)
        print_result("  {:<14}{:>10}  per rank at most, beside the memory above, while training goes on\n",
                     "and needs", bytes_text(save.memory));
    else
        print_result("  training stands still until it is written (run.async_save = false)\n");
}

void print(const PlanRequest& request, const Plan& plan) {
    for (const std::string& line :
         start_lines(request.config, plan, kernels::num_threads(), request.peak_flops))
        print_result("{}\n", line);
    const MemoryUse& memory = plan.largest_memory;
    print_result(
        "\nmemory of a rank, the largest of {}{}\n", plan.ranks,
        plan.ranks_looked_at < plan.ranks ? fmt::format(" ({} looked at)", plan.ranks_looked_at) : "");
    print_parts<MemoryClass>(memory.bytes.data(), num_memory_classes, memory.total());
    if (plan.pinned_bytes > 0)
        print_result(
            "  {:<14}{:>10}         beside it, of the host: copies, and messages that go through it\n",
            "pinned", bytes_text(plan.pinned_bytes));
    const Traffic mean = plan.rank.mean();
    if (total_bytes(mean) > 0) {
        print_result("\nsent a step by a rank, mean of the first {} steps\n", plan.rank.steps.size());
        print_parts<TrafficGroup>(mean.bytes.data(), num_traffic_groups, total_bytes(mean));
    }
    print_save(request, plan);
    print_alternatives(request.config, plan);
    if (request.peak_flops == 0) {
        print_result(
            "\ntime of a step: not known (no GPU can be used here, so the rate of products was not "
            "measured); give a GPU's rate with --run.peak_flops=FLOP/s\n");
        return;
    }
    const Times times = times_of(request, plan);
    print_result("\ntime of a step: at least {} in matrix products at the rate {}",
                 duration_text(times.products_s),
                 request.config.run.peak_flops > 0 ? "of run.peak_flops" : "measured here");
    if (request.network > 0)
        print_result(", {} on the network if nothing overlaps", duration_text(times.network_s));
    print_result("\nrun: {} steps, at least {}\n", request.config.run.steps,
                 duration_text(times.step_s() * static_cast<double>(request.config.run.steps)));
}

}  // namespace

std::vector<CommandOption> plan_options() {
    return {
        {"ranks", "N", "plan for that many ranks (default: those it is started on)"},
        {"steps", "100", "steps over which bytes are averaged"},
        {"network", "GB/s", "bandwidth of one rank, for the time of a step"},
        {"disk", "GB/s", "bandwidth of the file system for all ranks, for the time of a save (default: 1)"},
        {"json", "", "for programs: everything, bytes of each step included"}};
}

int run_plan(const CommandContext& context, const Arguments& arguments) {
    PlanRequest request;
    request.config = read_configuration(context.world, arguments.files, arguments.settings).config;
    Config& config = request.config;
    resolve_vocabulary(context.world, config);
    agree_on(context.world, [&] {
        request.ranks = static_cast<int>(arguments.integer("ranks", context.world.size(), 1, 1 << 24));
        resolve_auto(config);
        validate_run(config, request.ranks);
        request.steps = std::min(arguments.integer("steps", max_planned_steps, 1, 1000000), config.run.steps);
        request.network = arguments.real("network", 0, 0, 1e9) * 1e9;
        request.disk = arguments.real("disk", 1, 1e-6, 1e9) * 1e9;
    });
    if (context.world.rank() != 0) return 0;
    if (config.run.peak_flops > 0 || !backend::processor().name.empty())
        request.peak_flops = peak_flops(config.run) * request.ranks;
    const Plan plan = make_plan(config, request.ranks, 0, request.steps);
    if (arguments.has("json"))
        print_result("{}\n", json_of(request, plan).dump(2));
    else
        print(request, plan);
    return 0;
}

}  // namespace switchyard
