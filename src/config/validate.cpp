// Conditions between keys, and between keys and the number of ranks. Checked before anything is allocated.
#include <algorithm>
#include <limits>
#include <utility>

#include "comm/topology.hpp"
#include "config/option_table.hpp"
#include "config/step_range.hpp"
#include "config/value_rule.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

void check_positive(const char* key, std::int64_t value) {
    require(value > 0, "{} = {} (a model needs at least 1); give a positive number", key, value);
}

void check_model(const ModelConfig& m) {
    check_positive("model.hidden_size", m.hidden_size);
    check_positive("model.num_layers", m.num_layers);
    check_positive("model.num_heads", m.num_heads);
    check_positive("model.num_kv_heads", m.num_kv_heads);
    check_positive("model.ffn_size", m.ffn_size);
    require(m.vocab_size > 0,
            "model.vocab_size = {} (the embedding needs the number of tokens); give data.tokens or "
            "model.vocab_size",
            m.vocab_size);
    require(m.hidden_size % m.num_heads == 0,
            "model.hidden_size = {} is not divisible by model.num_heads = {} (each head takes an equal share "
            "of the hidden size); change one of them",
            m.hidden_size, m.num_heads);
    require(m.num_heads % m.num_kv_heads == 0,
            "model.num_heads = {} is not divisible by model.num_kv_heads = {} (equal groups of heads share "
            "one key-value head); change one of them",
            m.num_heads, m.num_kv_heads);
    const std::int64_t head_size = m.hidden_size / m.num_heads;
    require(head_size % 2 == 0,
            "the head size model.hidden_size / model.num_heads = {} / {} = {} is odd (rotary positions turn "
            "pairs of values); choose sizes with an even quotient",
            m.hidden_size, m.num_heads, head_size);
}

void check_layout(const Config& config, int ranks) {
    const int tp = config.parallel.tp;
    const ModelConfig& m = config.model;
    Topology::check_grid(ranks, tp);
    require(m.num_heads % tp == 0,
            "model.num_heads = {} is not divisible by parallel.tp = {} (a rank computes whole heads); choose "
            "a tp that divides {}",
            m.num_heads, tp, m.num_heads);
    require(m.num_kv_heads % tp == 0,
            "model.num_kv_heads = {} is not divisible by parallel.tp = {} (a rank computes whole key-value "
            "heads); choose a tp that divides {}",
            m.num_kv_heads, tp, m.num_kv_heads);
}

void check_data(const DataConfig& data, int dp) {
    require(data.seq_len >= 1 && data.micro_batch >= 1 && data.global_batch >= 1,
            "data.seq_len = {}, data.micro_batch = {}, data.global_batch = {} (a step needs at least one "
            "sequence of one token); give positive numbers",
            data.seq_len, data.micro_batch, data.global_batch);
    require(data.micro_batch * data.seq_len <= std::numeric_limits<std::int32_t>::max(),
            "data.micro_batch x data.seq_len = {} x {} tokens at once (positions are 32-bit numbers); use a "
            "smaller data.micro_batch; data.global_batch sets the sequences of a step",
            data.micro_batch, data.seq_len);
    const std::int64_t at_once = dp * data.micro_batch;
    const std::int64_t below = data.global_batch / at_once * at_once;
    require(data.global_batch % at_once == 0,
            "data.global_batch = {} is not divisible by dp x data.micro_batch = {} x {} = {} (every rank "
            "takes the same number of micro-batches in a step); use {}{}, or change data.micro_batch or the "
            "number of ranks",
            data.global_batch, dp, data.micro_batch, at_once, below > 0 ? fmt::format("{} or ", below) : "",
            below + at_once);
}

void check_optim_and_run(const OptimConfig& optim, const RunConfig& run) {
    require(run.dtype != "f64" || optim.gradient_dtype == "f32",
            "optim.gradient_dtype = {} with run.dtype = f64 (gradients of a reference run travel in f64; "
            "rounding them would defeat it); use optim.gradient_dtype = f32",
            optim.gradient_dtype);
    require(run.steps > 0, "run.steps = {} (a run has at least one step); give a positive number", run.steps);
    require(run.stop_step >= 0 && run.stop_step <= run.steps,
            "run.stop_step = {} is beyond run.steps = {} (the schedules end there); use at most {}, or 0 for "
            "run.steps",
            run.stop_step, run.steps, run.steps);
    require(optim.warmup_steps <= run.steps,
            "optim.warmup_steps = {} exceeds run.steps = {} (the learning rate would never reach its peak); "
            "use at most {}; to end a long schedule early use run.stop_step",
            optim.warmup_steps, run.steps, run.steps);
    const double decay_steps = optim.decay_ratio * static_cast<double>(run.steps);
    require(optim.schedule != "wsd" ||
                static_cast<double>(optim.warmup_steps) + decay_steps <= static_cast<double>(run.steps),
            "optim.warmup_steps = {} and a decay of {} steps (optim.decay_ratio = {}) exceed run.steps = {} "
            "(warm-up and decay would overlap); shorten one of them",
            optim.warmup_steps, decay_steps, optim.decay_ratio, run.steps);
    step_range("run.trace_steps", run.trace_steps);
    require(!run.dir.empty(), "run.dir is empty (log and checkpoints need a directory); give one");
}

}  // namespace

void validate(const Config& config, int ranks) {
    check_model(config.model);
    check_layout(config, ranks);
    check_data(config.data, ranks / config.parallel.tp);
    check_optim_and_run(config.optim, config.run);
}

void check_paths(const Config& config) {
    for (const auto& [key, path] :
         {std::pair("run.dir", &config.run.dir), std::pair("run.init_from", &config.run.init_from),
          std::pair("data.tokens", &config.data.tokens)}) {
        require(!path->starts_with("~/"),
                "{} = {} begins with ~ (only a shell replaces it, and only at the start of a word); write "
                "the path itself, or $HOME in the shell",
                key, *path);
        require(
            path->size() < 2 || !path->starts_with('\'') || !path->ends_with('\''),
            "{} = {} is in single quotes (they would become part of the name); use double quotes, or none",
            key, *path);
    }
}

}  // namespace switchyard
