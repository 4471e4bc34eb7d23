// RANKS: 1 2 3 4
// MELoRA on every layout against a reference on one process (reference/melora.hpp) over 100 steps in f64,
// where tp cuts between minis and where it cuts them; central differences; no sum over tp for whole minis.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "reference/melora.hpp"
#include "support/dense_model.hpp"
#include "support/reference_run.hpp"

namespace switchyard {
namespace melora_test {

using reference::MeloraMatrix;
using test::Values;
using testing::tiny_config;
using testing::TinyRun;

/// 4 minis: 12 heads of 2 in blocks of 24 / tp, minis of 6, which tp = 3 cuts; 48 feed-forward elements in
/// blocks of 48 / tp, minis of 12.
std::vector<std::string> arguments_of(std::vector<std::string> more) {
    more.insert(more.begin(),
                {"--method.name=melora", "--method.rank=3", "--method.minis=4", "--method.alpha=4",
                 "--model.ffn_size=48", "--model.init_std=0.2", "--model.num_layers=1", "--optim.lr=0.003",
                 "--optim.eps=1e-4", "--optim.schedule=constant", "--optim.warmup_steps=0"});
    return more;
}

MeloraMatrix matrix_of(const Config& config, const std::string& linear, int m, int n) {
    const bool mlp = linear.find(".mlp.") != std::string::npos;
    MeloraMatrix x(m, n, static_cast<int>(option_integer(config.method, "rank")), 4,
                   static_cast<int>(option_integer(config.method, mlp ? "minis_mlp" : "minis")));
    const std::uint64_t stream = stream_key(config.run.seed, linear + ".lora_A");
    for (int i = 0; i < x.r * n; ++i)
        x.a.numbers[i].value = (2 * uniform(stream, i) - 1) / std::sqrt(static_cast<double>(n / x.minis));
    return x;
}

void expect_reference(const std::vector<std::string>& arguments, int steps) {
    const Config config = tiny_config(arguments_of(arguments));
    const auto make = [&](const std::string& linear, int m, int n) {
        return matrix_of(config, linear, m, n);
    };
    testing::expect_reference<MeloraMatrix>(config, steps, make, 1e-10);
}

TEST(Melora, EqualsOneProcess) {
    expect_reference({}, 100);
}

/// 5461 in small: no number of minis but 1 divides 37.
TEST(Melora, OnePairInTheMlpEqualsOneProcess) {
    expect_reference({"--model.ffn_size=37", "--method.minis=2"}, 12);
}

TEST(Melora, ShardedWeightsAndRecomputationEqualOneProcess) {
    expect_reference({"--parallel.shard_frozen=true", "--model.recompute=true", "--method.minis=6",
                      "--method.minis_mlp=8"},
                     12);
}

TEST(Melora, GradientsAreDifferencesOfTheLoss) {
    if (Comm::duplicate(MPI_COMM_WORLD).size() > 1) GTEST_SKIP() << "on one rank";
    const Config config = tiny_config(arguments_of({}));
    const Topology one = testing::serial();
    TinyRun run(config, one);
    run.losses(5);
    TrainState& s = run.state();
    const testing::WholeState at = testing::whole_state(s);
    s.step = 0;
    std::map<std::string, Values> gradients;
    testing::HookedMethod::install(s).after_reduction = [&] {
        for (Parameter* p : s.model.parameters()) gradients[p->shard.name] = test::values_of(p->gradient);
    };
    run.step();
    testing::DenseModel dense(config);
    std::map<std::string, MeloraMatrix> matrices;
    for (const Parameter* p : dense.parameters()) {
        const std::string& name = p->shard.name;
        dense.set(name, at.at("/model/" + name));
        if (!name.ends_with("_proj.weight")) continue;
        const std::string linear = name.substr(0, name.size() - 7), stem = "/model/" + linear;
        MeloraMatrix x =
            matrix_of(config, linear, static_cast<int>(p->shard.rows), static_cast<int>(p->shard.cols));
        x.w = at.at("/model/" + name);
        for (int i = 0; i < x.r * x.n; ++i) x.a.numbers[i].value = at.at(stem + ".lora_A")[i];
        for (int i = 0; i < x.m * x.r; ++i) x.b.numbers[i].value = at.at(stem + ".lora_B")[i];
        dense.set(name, x.effective());
        matrices.emplace(name, std::move(x));
    }
    for (const char* linear : {"model.layers.0.self_attn.k_proj", "model.layers.0.mlp.down_proj"}) {
        const std::string name = std::string(linear) + ".weight";
        MeloraMatrix& x = matrices.at(name);
        const auto loss_with = [&] {
            dense.set(name, x.effective());
            return dense.loss();
        };
        // The gradient of A lies by long rows.
        const Values& turned = gradients.at(std::string(linear) + ".lora_A");
        Values d_a(turned.size());
        for (int j = 0; j < x.n; ++j)
            for (int k = 0; k < x.r; ++k)
                d_a[static_cast<std::size_t>(k * x.n + j)] = turned[static_cast<std::size_t>(j * x.r + k)];
        testing::expect_differences(std::string(linear) + ".lora_A", d_a, x.a, false, loss_with);
        testing::expect_differences(std::string(linear) + ".lora_B",
                                    gradients.at(std::string(linear) + ".lora_B"), x.b, false, loss_with);
        dense.set(name, x.effective());
    }
}

/// Where tp divides the minis, every factor is cut with its minis and belongs to dp alone.
TEST(Melora, WholeMinisSendNothingOverTp) {
    const Config config = tiny_config(arguments_of({}));
    testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        int own = 0, partial = 0;
        for (Parameter* p : run.state().model.parameters()) {
            if (p->role != ParameterRole::factor) continue;
            ++(p->tp_gradient == TpGradient::own ? own : partial);
        }
        if (here.parallel.tp == 2 || here.parallel.tp == 4) {
            EXPECT_GE(own, 8) << "attention, two factors of four matrices";
        }
        if (here.parallel.tp == 3) {
            EXPECT_GE(partial, 4) << "minis of 6 in blocks of 8 heads' elements";
        }
    });
}

TEST(Melora, RefusesNumbersThatDoNotDivide) {
    try {
        const Config config = tiny_config(arguments_of({"--method.minis=5"}));
        validate_run(config, 1);
        ADD_FAILURE() << "no error";
    } catch (const UserError& error) {
        EXPECT_NE(std::string(error.what()).find("use a divisor of 24, for example 4"), std::string::npos)
            << error.what();
    }
    EXPECT_THROW(validate_run(tiny_config(arguments_of({"--method.rank=7"})), 1), UserError);
    const Config automatic = tiny_config({"--method.name=melora"});
    EXPECT_EQ(option_integer(automatic.method, "minis"), 2);
    EXPECT_EQ(option_integer(automatic.method, "minis_mlp"), 1);  // of 37
    validate_run(automatic, 1);
}

}  // namespace melora_test
}  // namespace switchyard
