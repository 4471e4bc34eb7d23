// What methods with factors by long rows have in common: gradients beside central differences of the loss, at
// W + s B A, and an error where a damping is too small.
#pragma once

#include "core/error.hpp"
#include "reference/riemannian.hpp"
#include "support/dense_model.hpp"
#include "support/reference_run.hpp"

namespace switchyard::testing {

/// value or gradient of every factor, (valid rows of the long dimension, r).
inline std::map<std::string, test::Values> factors_of(TrainState& s, Tensor Parameter::*part) {
    std::map<std::string, test::Values> all;
    for (Parameter* p : s.model.parameters())
        if (p->role == ParameterRole::factor) {
            test::Values& values = all[p->shard.name] = test::values_of(p->*part);
            values.resize(static_cast<std::size_t>(p->shard.rows * p->shard.cols));
        }
    return all;
}

/// Of three matrices after five steps, on one process; s = alpha / rank. Both factors have learned by then,
/// and gradients are those before anything is done to them.
inline void expect_factor_differences(const Config& config, double alpha) {
    const auto r = static_cast<int>(option_integer(config.method, "rank"));
    const Topology one = serial();
    TinyRun run(config, one);
    run.losses(5);
    TrainState& s = run.state();
    const WholeState at = whole_state(s);
    s.step = 0;
    std::map<std::string, test::Values> gradients;
    HookedMethod::install(s).after_reduction = [&] { gradients = factors_of(s, &Parameter::gradient); };
    run.step();
    DenseModel dense(config);
    std::map<std::string, reference::RiemannianMatrix> matrices;
    for (const Parameter* p : dense.parameters()) {
        const std::string& name = p->shard.name;
        dense.set(name, at.at("/model/" + name));
        if (!name.ends_with("_proj.weight")) continue;
        const std::string stem = "/model/" + name.substr(0, name.size() - 7);
        reference::RiemannianMatrix x(static_cast<int>(p->shard.rows), static_cast<int>(p->shard.cols), r,
                                      alpha);
        x.w = at.at("/model/" + name);
        for (int k = 0; k < x.r; ++k) {
            for (int j = 0; j < x.n; ++j) x.a.value(j, k) = at.at(stem + ".lora_A")[k * x.n + j];
            for (int i = 0; i < x.m; ++i) x.b.value(i, k) = at.at(stem + ".lora_B")[i * x.r + k];
        }
        dense.set(name, x.effective());
        matrices.emplace(name, std::move(x));
    }
    for (const char* kind :
         {"q_proj", "up_proj", "down_proj"}) {  // of both splits; 24 x 24, 37 x 24, 24 x 37
        const auto found = std::find_if(matrices.begin(), matrices.end(), [&](const auto& matrix) {
            return matrix.first.find(kind) != std::string::npos;
        });
        auto& [name, x] = *found;
        const std::string linear = name.substr(0, name.size() - 7);
        const auto loss_with = [&] {
            dense.set(name, x.effective());
            return dense.loss();
        };
        expect_differences(linear + ".lora_A", gradients.at(linear + ".lora_A"), x.a, false, loss_with);
        expect_differences(linear + ".lora_B", gradients.at(linear + ".lora_B"), x.b, false, loss_with);
        dense.set(name, x.effective());
    }
}

/// On every layout: one column of A is not 0 and very large, and 2^40 + damping - 2^40 leaves nothing for the
/// second pivot. `named`: how the error names the damping's key.
inline void expect_damping_error(const Config& config, const std::string& named) {
    for_each_layout(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        for (Parameter* p : run.state().model.parameters()) {
            if (p->shard.name != "model.layers.0.mlp.up_proj.lora_A") continue;
            test::HostTensor values(DType::f64, p->value.shape());
            for (int k = 0; k < 5; ++k) values.set(k, 0x1p20);
            kernels::upload(values.bytes(), p->value);
        }
        run.state().weights_changed();
        try {
            run.step();
            ADD_FAILURE() << "no error";
        } catch (const AgreedError& error) {
            EXPECT_NE(std::string(error.what()).find("A A' of model.layers.0.mlp.up_proj plus " + named),
                      std::string::npos)
                << error.what();
        }
    });
}

}  // namespace switchyard::testing
