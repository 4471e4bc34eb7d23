// The closing table shows memory and bytes of rank 0.
#include "run/report.hpp"

#include <fmt/format.h>

#include "core/units.hpp"
#include "plan/save_plan.hpp"

namespace switchyard {
namespace {

using nlohmann::ordered_json;

std::string row(const std::string& name, const std::string& predicted, const std::string& measured) {
    return fmt::format("  {:<28} {:>14} {:>14}", name, predicted, measured);
}

}  // namespace

ordered_json json_of(const Traffic& traffic) {
    ordered_json result = ordered_json::object();
    for (int g = 0; g < num_traffic_groups; ++g)
        if (traffic.bytes[g] > 0)
            result[name_of(static_cast<TrafficGroup>(g))] = static_cast<std::int64_t>(traffic.bytes[g]);
    return result;
}

ordered_json json_of(const MemoryUse& use) {
    ordered_json result = ordered_json::object();
    for (int c = 0; c < num_memory_classes; ++c)
        result[name_of(static_cast<MemoryClass>(c))] = static_cast<std::int64_t>(use.bytes[c]);
    result["total"] = static_cast<std::int64_t>(use.total());
    return result;
}

ordered_json step_record(const StepFigures& x, const RunScale& scale) {
    ordered_json record;
    record["step"] = x.step;
    record["tokens"] = x.step * static_cast<std::int64_t>(scale.tokens_per_step);
    record["loss"] = x.result.loss;
    if (x.val_loss) record["val_loss"] = *x.val_loss;
    record["lr"] = x.result.lr;
    record["grad_norm"] = x.result.grad_norm;
    record["step_s"] = x.step_s;
    record["tokens_per_s"] = scale.rate(x.step_s);
    record["mfu"] = scale.mfu(scale.flops_per_token.dense, x.step_s);
    record["mfu_executed"] = scale.mfu(scale.flops_per_token.executed, x.step_s);
    ordered_json phases = ordered_json::object();
    for (int p = 0; p < num_phases; ++p)
        if (static_cast<Phase>(p) != Phase::checkpoint)  // a save is an event of its own
            phases[name_of(static_cast<Phase>(p))] = x.phases.seconds(static_cast<Phase>(p));
    record["phases"] = phases;
    record["bytes"] = json_of(x.sent);
    record["vectors_switched"] = x.result.method.vectors_switched;
    record["moments_reset"] = x.result.method.moments_reset;
    for (const auto& [part, value] : x.result.method.objective) record["objective"][part] = value;
    if (!x.result.method.residual_of.empty()) {
        record["residual"] = x.result.method.residual;
        record["residual_of"] = x.result.method.residual_of;
    }
    if (!x.result.method.kept.empty()) record["kept"] = x.result.method.kept;
    return record;
}

void RunTotals::add(const StepFigures& x) {
    ++steps;
    seconds += x.step_s;
    for (int p = 0; p < num_phases; ++p) phase_s[p] += x.phases.seconds(static_cast<Phase>(p));
    if (x.step <= max_planned_steps) sent.push_back(x.sent);
}

std::vector<std::string> start_lines(const Config& config, const Plan& plan, int threads, double peak_flops) {
    const ParameterCounts& n = plan.parameters;
    const auto count = [](std::int64_t x) { return count_text(static_cast<double>(x)); };
    std::vector<std::string> lines;
    lines.push_back(fmt::format("layout      {} rank{} (dp {} x tp {}), {} thread{} each, {}", plan.ranks,
                                plan.ranks == 1 ? "" : "s", plan.dp, plan.tp, threads,
                                threads == 1 ? "" : "s", config.run.dtype));
    lines.push_back(fmt::format(
        "model       {} parameters: hidden {}, {} layers, {} heads, feed-forward {}, vocabulary {}",
        count(n.model()), config.model.hidden_size, config.model.num_layers, config.model.num_heads,
        config.model.ffn_size, config.model.vocab_size));
    lines.push_back(fmt::format("method      {}: {} trained ({} in low-rank factors), {} frozen",
                                config.method.name, count(n.trainable()), count(n.factors), count(n.frozen)));
    if (plan.merged_linears + plan.unmerged_linears > 0)
        lines.push_back(fmt::format("products    {} low-rank linears run merged, {} unmerged",
                                    plan.merged_linears, plan.unmerged_linears));
    lines.push_back(fmt::format("rates       optim.lr {}, optim.dense_lr {} (embedding, head, norms)",
                                config.optim.lr, config.optim.dense_lr));
    const SavePlan save = plan_save(config, plan.checkpoint_bytes, plan.ranks);
    lines.push_back(fmt::format("checkpoint  {} a file", bytes_text(save.bytes)) +
                    (save.memory > 0
                         ? fmt::format(", up to {} of memory per rank while it is written in the background",
                                       bytes_text(save.memory))
                         : ""));
    lines.push_back(fmt::format(
        "step        {} tokens, {}FLOP executed ({}FLOP dense){}", count_text(plan.tokens_per_step),
        count_text(plan.flops_per_token.executed * plan.tokens_per_step),
        count_text(plan.flops_per_token.dense * plan.tokens_per_step),
        peak_flops > 0 ? fmt::format(", products at {}FLOP/s {}", count_text(peak_flops),
                                     config.run.peak_flops > 0 ? "(run.peak_flops)" : "here")
                       : ""));
    for (const std::string& note : plan.notes) lines.push_back("note        " + note);
    return lines;
}

std::string memory_line(const Plan& plan) {
    std::string classes;
    for (int c = 0; c < num_memory_classes; ++c)
        if (plan.largest_memory.bytes[c] > 0)
            classes += fmt::format(", {} {}", name_of(static_cast<MemoryClass>(c)),
                                   bytes_text(plan.largest_memory.bytes[c]));
    if (plan.pinned_bytes > 0)
        classes += fmt::format("; of the host {} pinned", bytes_text(plan.pinned_bytes));
    return fmt::format("memory      {} per rank at most{}", bytes_text(plan.largest_memory.total()), classes);
}

std::vector<std::string> finish_lines(const Plan& plan, const RunScale& scale, const RunTotals& totals,
                                      const MeasuredMemory& measured) {
    std::vector<std::string> lines{row("rank 0", "predicted", "measured")};
    for (int c = 0; c < num_memory_classes; ++c)
        if (plan.rank.memory.bytes[c] > 0 || measured.arena.bytes[c] > 0)
            lines.push_back(row(fmt::format("memory, {}", name_of(static_cast<MemoryClass>(c))),
                                bytes_text(plan.rank.memory.bytes[c]), bytes_text(measured.arena.bytes[c])));
    lines.push_back(
        row("memory, arena", bytes_text(plan.rank.memory.total()), bytes_text(measured.arena.total())));
    lines.push_back(row("memory, process less start", bytes_text(plan.rank.memory.total()),
                        measured.process_bytes > 0 ? bytes_text(measured.process_bytes) : "-"));
    if (plan.pinned_bytes > 0)
        lines.push_back(row("memory, pinned on the host", bytes_text(plan.pinned_bytes),
                            bytes_text(measured.pinned_bytes)));
    Traffic predicted, sent;
    const auto compared = static_cast<std::int64_t>(totals.sent.size());
    for (std::int64_t i = 0; i < compared; ++i)
        for (int g = 0; g < num_traffic_groups; ++g) {
            predicted.bytes[g] +=
                plan.rank.steps.at(totals.first_step + i).bytes[g] / static_cast<double>(compared);
            sent.bytes[g] += totals.sent[i].bytes[g] / static_cast<double>(compared);
        }
    for (int g = 0; g < num_traffic_groups; ++g)
        if (predicted.bytes[g] > 0 || sent.bytes[g] > 0)
            lines.push_back(row(fmt::format("sent a step, {}", name_of(static_cast<TrafficGroup>(g))),
                                bytes_text(predicted.bytes[g]), bytes_text(sent.bytes[g])));
    if (totals.steps == 0) return lines;
    const double step_s = totals.seconds / static_cast<double>(totals.steps);
    lines.push_back(row(
        "step, products alone / all",
        fmt::format("{:.4f} s", scale.flops_per_token.executed * scale.tokens_per_step / scale.peak_flops),
        fmt::format("{:.4f} s", step_s)));
    lines.push_back(fmt::format(
        "  {:.0f} tokens/s, model FLOPs utilisation {:.3f} dense, {:.3f} executed (mean of {} steps)",
        scale.rate(step_s), scale.mfu(scale.flops_per_token.dense, step_s),
        scale.mfu(scale.flops_per_token.executed, step_s), totals.steps));
    std::string shares;
    for (int p = 0; p < num_phases; ++p)
        if (totals.phase_s[p] > 0)
            shares += fmt::format("{}{} {:.1f} %", shares.empty() ? "" : ", ", name_of(static_cast<Phase>(p)),
                                  100 * totals.phase_s[p] / totals.seconds);
    lines.push_back("  of the step: " + shares);
    return lines;
}

}  // namespace switchyard
