#include "commands/list_methods.hpp"

#include <fmt/format.h>

#include "methods/registry.hpp"
#include "plan/plan.hpp"

namespace switchyard {
namespace {

constexpr int num_ranks = 8;
constexpr std::int64_t num_steps = 100;

struct MethodCost {
    double memory = 0, sent = 0, flops = 0;  // of a rank; bytes, bytes a step, operations a token
};

MethodCost cost_of(const std::string& method, bool shard_frozen = false) {
    Config config = parse_config("", "",
                                 {"--method.name=" + method, "--model.preset=130m", "--run.dtype=bf16",
                                  "--model.vocab_size=32000", "--data.micro_batch=8", "--data.global_batch=512"},
                                 method_options())
                        .config;
    config.parallel.shard_frozen = shard_frozen;
    resolve_auto(config);
    const Plan plan = make_plan(config, num_ranks, 0, num_steps);
    return {plan.largest_memory.total(), total_bytes(plan.rank.mean()), plan.flops_per_token.executed};
}

std::string keys_text(const MethodOptions& method) {
    if (method.options.empty()) return "none";
    std::string text;
    for (const MethodOption& option : method.options)
        text += fmt::format("{}{} = {}", text.empty() ? "" : ", ", option.key, option.default_value);
    return text;
}

}  // namespace

std::string methods_text() {
    std::string text = fmt::format(
        "Methods (method.name), with their keys in section [method] and defaults; `train --help` has each key's "
        "meaning, docs/methods.md more.\nCost beside full's: planned for preset 130m in bf16 on {} data-parallel "
        "ranks; `plan` has yours.\n",
        num_ranks);
    const std::vector<MethodGuide> guides = method_guides();
    const MethodCost full = cost_of(method_of_whole_weights());
    std::size_t i = 0;
    for (const MethodOptions& method : method_options()) {
        const MethodGuide& guide = guides[i++];
        const MethodCost cost = cost_of(method.name);
        const double sharded = cost_of(method.name, true).memory / full.memory;
        std::string memory = fmt::format("memory {:.2f}", cost.memory / full.memory);
        if (sharded < cost.memory / full.memory)
            memory += fmt::format(" ({:.2f} with parallel.shard_frozen)", sharded);
        text += fmt::format("\n{}: {}\n", method.name, method.help);
        const auto line = [&](const char* name, const std::string& value) {
            text += fmt::format("  {:<10} {}\n", name, value);
        };
        line("equation", guide.equation);
        line("keys", keys_text(method));
        line("rates", fmt::format("optim.lr = {}, optim.dense_lr = {}", method.lr, method.dense_lr));
        line("cost", fmt::format("{}, sent a step {:.2f}, operations {:.2f} of full's", memory,
                                 cost.sent / full.sent, cost.flops / full.flops));
        line("use", guide.use);
        line("validated", guide.validated);
        line("source", guide.source);
    }
    return text;
}

}  // namespace switchyard
