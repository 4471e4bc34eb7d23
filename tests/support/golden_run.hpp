// A run on one process from the weights and tokens of llama_f64.h5, whose ten steps are compared with those
// that a file of tests/golden records.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "support/golden_file.hpp"
#include "support/tiny_run.hpp"

namespace switchyard::testing {

constexpr double golden_tolerance = 1e-9;

/// The model of `model` and the optimizer of `settings`, at a constant rate; `more`: method and other keys.
inline Config golden_config(const GoldenFile& model, const GoldenFile& settings,
                            const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"--run.dtype=f64",           "--data.tokens=golden",
                                       "--optim.schedule=constant", "--optim.warmup_steps=0",
                                       "--optim.dense_lr=0",        "--optim.decay_norms=true"};
    const auto add = [&](const GoldenFile& file, const std::string& key, const std::string& attribute) {
        arguments.push_back(fmt::format("--{}={}", key, file.number(attribute)));
    };
    for (const char* key :
         {"vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "ffn_size"})
        add(model, std::string("model.") + key, key);
    for (const char* key : {"lr", "beta1", "beta2", "eps", "weight_decay", "clip_norm"})
        add(settings, std::string("optim.") + key, key);
    add(model, "data.seq_len", "seq_len");
    add(model, "data.micro_batch", "batch");
    add(model, "data.global_batch", "batch");
    arguments.insert(arguments.end(), more.begin(), more.end());
    Config config = parse_config("", "", arguments, method_options()).config;
    resolve_auto(config);
    return config;
}

/// Gives the trained tensors called <name>.weight, and frozen ones, the values of `model`.
inline void set_golden_weights(TrainState& s, const GoldenFile& model) {
    const auto set = [&](const Shard& shard, Tensor values) {
        set_valid_part(shard, values, model.read<double>("/weights/" + shard.name));
    };
    for (Linear* linear : s.model.linears())  // words of f64 are the values themselves
        if (linear->frozen()) set(linear->shard(), linear->base().words.hi);
    for (Parameter* p : s.model.parameters())
        if (p->shard.name.ends_with(".weight")) set(p->shard, p->value);
}

/// Ten updates at the full rate; `recorded`: the file's /<group>/loss and grad_norm. look(step), from 1, is
/// called while this rank's gradients are complete.
template <class Look>
void expect_golden_steps(TinyRun& run, const GoldenFile& model, const GoldenFile& recorded,
                         const std::string& group, const Look& look) {
    TrainState& s = run.state();
    const auto tokens = model.read<std::int32_t>("/tokens"), targets = model.read<std::int32_t>("/targets");
    const auto losses = recorded.read<double>(group + "/loss"),
               norms = recorded.read<double>(group + "/grad_norm");
    const std::int64_t n = run.config().data.micro_batch * run.config().data.seq_len;
    s.optimizer.masters_from_values();
    s.weights_changed();
    for (int step = 0; step < 10; ++step) {
        kernels::upload(tokens.data() + step * n, s.model.batch().tokens);
        kernels::upload(targets.data() + step * n, s.model.batch().targets);
        const auto valid_targets = std::count_if(targets.begin() + step * n, targets.begin() + (step + 1) * n,
                                                 [](std::int32_t t) { return t >= 0; });
        const double scale = 1.0 / static_cast<double>(valid_targets);
        s.optimizer.zero_gradients();
        s.method->begin_step(s.step);
        s.model.forward(scale);
        double loss = 0;
        kernels::download(s.model.loss(), &loss);
        EXPECT_NEAR(loss * scale, losses[step], golden_tolerance * losses[step]) << "step " << step + 1;
        s.model.backward();
        look(step + 1);
        s.method->reduce_gradients(s.optimizer);
        s.method->squared_gradient_norm(s.optimizer);
        s.optimizer.decide_clip();
        const double norm = s.optimizer.gradient_norm(s.optimizer.scalars().read());
        EXPECT_NEAR(norm, norms[step], golden_tolerance * norms[step]) << "step " << step + 1;
        s.method->before_update(s.optimizer, step);
        s.method->update(s.optimizer, 1.0);
        s.optimizer.gather_values();
        MethodReport report = s.method->after_gather(s.optimizer, s.step);
        s.method->end_step(s.optimizer.scalars().read(), report);
        ++s.step;
        s.weights_changed();
    }
}

}  // namespace switchyard::testing
