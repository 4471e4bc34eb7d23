// RANKS: 1 2 3 4
// SoRA on every layout against a reference on one process (reference/sora.hpp) over 100 steps in f64, with
// both proximal steps and slots that close; the objective; central differences of it.
#include <gtest/gtest.h>

#include "reference/sora.hpp"
#include "support/dense_model.hpp"
#include "support/reference_run.hpp"

namespace switchyard {
namespace sora_test {

using reference::Array;
using reference::SoraMatrix;
using reference::Trained;
using testing::tiny_config;
using testing::TinyRun;

std::vector<std::string> arguments_of(std::vector<std::string> more) {
    more.insert(more.begin(), {"--method.name=sora", "--method.rank=5", "--method.alpha=4",
                               "--model.init_std=0.2", "--model.num_layers=1", "--optim.lr=0.003",
                               "--optim.eps=1e-4", "--optim.schedule=constant", "--optim.warmup_steps=0"});
    return more;
}

constexpr int num_gates = 7 * 5;

/// thresholds: of each step; empty: method.threshold.
SoraMatrix matrix_of(const Config& config, int m, int n, const Array& thresholds = {}) {
    SoraMatrix x(m, n, 5, 4);
    x.share = option_real(config.method, "sparsity") / num_gates;
    x.thresholds = thresholds;
    if (thresholds.empty()) x.thresholds.assign(100, option_real(config.method, "threshold"));
    x.soft = option_text(config.method, "prox") == "soft";
    return x;
}

void expect_reference(const std::vector<std::string>& arguments, int steps, const Array& thresholds = {}) {
    const Config config = tiny_config(arguments_of(arguments));
    const auto make = [&](const std::string& linear, int m, int n) {
        SoraMatrix x = matrix_of(config, m, n, thresholds);
        const std::uint64_t stream = stream_key(config.run.seed, linear + ".lora_A");
        for (int i = 0; i < x.r * n; ++i)
            x.a.numbers[i].value = (2 * uniform(stream, i) - 1) / std::sqrt(static_cast<double>(n));
        for (int k = 0; k < x.r; ++k)
            x.gate.value(k, 0) = normal(stream_key(config.run.seed, linear + ".lora_gate"), k);
        return x;
    };
    testing::expect_reference<SoraMatrix>(config, steps, make, 1e-10);
}

TEST(Sora, SoftEqualsOneProcess) {
    expect_reference({"--method.threshold=2", "--method.sparsity=0.5"}, 100);
}

TEST(Sora, PublishedEqualsOneProcess) {
    expect_reference({"--method.prox=published", "--method.threshold=0.006", "--method.sparsity=0"}, 100);
}

TEST(Sora, ShardedWeightsAndRecomputationEqualOneProcess) {
    expect_reference({"--method.threshold=2", "--method.sparsity=0.5", "--parallel.shard_frozen=true",
                      "--model.recompute=true"},
                     40);
}

TEST(Sora, StagesOfThresholdsEqualOneProcess) {
    const std::vector<std::string> stages{"--method.sparsity=0.5", "--method.threshold_stages=3",
                                          "--method.threshold_interval=9"};
    for (const auto& [spacing, first, middle] : {std::tuple{"linear", "0", 2.0}, std::tuple{"geometric", "1", 2.0}}) {
        Array thresholds(9, std::atof(first));
        thresholds.insert(thresholds.end(), 9, middle);
        thresholds.insert(thresholds.end(), 12, 4);  // the last stage has no end
        std::vector<std::string> arguments = stages;
        arguments.insert(arguments.end(),
                         {fmt::format("--method.threshold_spacing={}", spacing),
                          fmt::format("--method.threshold={}", first), "--method.threshold_last=4"});
        expect_reference(arguments, 30, thresholds);
    }
}

TEST(Sora, StagesThatCannotBeAreRefused) {
    for (const std::vector<std::string>& wrong :
         {std::vector<std::string>{"--method.threshold_stages=3"},
          {"--method.threshold_stages=3", "--method.threshold_interval=9", "--method.threshold=0",
           "--method.threshold_last=4", "--method.threshold_spacing=geometric"}})
        EXPECT_THROW(validate_run(tiny_config(arguments_of(wrong)), 1), UserError);
}

std::vector<double> gates_of(TrainState& s) {
    std::vector<double> gates;
    for (Parameter* p : s.model.parameters())
        if (p->shard.name.ends_with(".lora_gate"))
            for (double x : test::values_of(p->value)) gates.push_back(x);
    return gates;
}

/// Slots close and the report has the penalty of the gates before the update; all ranks have the same gates,
/// in f32 also where the run computes in bf16.
TEST(Sora, ClosesSlotsAndReportsThePenalty) {
    for (const char* dtype : {"f64", "bf16"}) {
        const Config config = tiny_config(arguments_of(
            {"--method.threshold=9", "--method.sparsity=0.5", std::string("--run.dtype=") + dtype}));
        testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
            TinyRun run(here, topology);
            for (int t = 0; t < 20; ++t) {
                const std::vector<double> before = gates_of(run.state());
                ASSERT_EQ(before.size(), static_cast<std::size_t>(num_gates));
                double penalty = 0;
                for (double gate : before) penalty += 0.5 * std::fabs(gate) / num_gates;
                const StepResult step = run.step();
                ASSERT_EQ(step.method.objective.size(), 1u);
                EXPECT_EQ(step.method.objective[0].first, "penalty");
                EXPECT_NEAR(step.method.objective[0].second, penalty, 1e-12);
            }
            const std::vector<double> gates = gates_of(run.state());
            const auto closed = std::count(gates.begin(), gates.end(), 0.0);
            EXPECT_GT(closed, 3);
            EXPECT_LT(closed, num_gates - 3);
            for (double gate : gates) {
                EXPECT_EQ(all_reduce_max(topology.world, gate), gate);
                if (dtype[0] == 'b' && gate != 0 && topology.world.rank() == 0) {
                    EXPECT_EQ(static_cast<float>(gate), gate);
                }
            }
        });
    }
}

/// The loss of the dense model at the weights of the matrices, over the batch of step 0.
TEST(Sora, GradientsAreDifferencesOfTheObjective) {
    if (Comm::duplicate(MPI_COMM_WORLD).size() > 1) GTEST_SKIP() << "on one rank";
    const Config config =
        tiny_config(arguments_of({"--method.threshold=2", "--method.sparsity=0.5", "--optim.clip_norm=1e9"}));
    const Topology one = testing::serial();
    TinyRun run(config, one);
    run.losses(5);
    TrainState& s = run.state();
    const testing::WholeState at = testing::whole_state(s);
    testing::DenseModel dense(config);
    std::map<std::string, SoraMatrix> matrices;
    for (const Parameter* p : dense.parameters()) {
        const std::string& name = p->shard.name;
        dense.set(name, at.at("/model/" + name));
        if (!name.ends_with("_proj.weight")) continue;
        const std::string stem = "/model/" + name.substr(0, name.size() - 7);
        SoraMatrix x = matrix_of(config, static_cast<int>(p->shard.rows), static_cast<int>(p->shard.cols));
        x.w = at.at("/model/" + name);
        for (int i = 0; i < x.r * x.n; ++i) x.a.numbers[i].value = at.at(stem + ".lora_A")[i];
        for (int k = 0; k < x.r; ++k) {
            x.gate.value(k, 0) = at.at(stem + ".lora_gate")[k];
            for (int i = 0; i < x.m; ++i) x.b.value(k, i) = at.at(stem + ".lora_B")[i * x.r + k];
        }
        dense.set(name, x.effective());
        matrices.emplace(name, std::move(x));
    }
    s.step = 0;
    std::map<std::string, test::Values> gradients;
    testing::HookedMethod::install(s).after_reduction = [&] {
        for (Parameter* p : s.model.parameters()) gradients[p->shard.name] = test::values_of(p->gradient);
    };
    run.step();
    for (auto& [name, x] : matrices) {
        const std::string linear = name.substr(0, name.size() - 7);
        const auto objective_with = [&] {
            dense.set(name, x.effective());
            double sum = dense.loss();
            for (auto& [other, matrix] : matrices)
                for (int k = 0; k < matrix.r; ++k) sum += matrix.share * std::fabs(matrix.gate.value(k, 0));
            return sum;
        };
        for (auto& [part, trained] : {std::pair<std::string, Trained*>{".lora_A", &x.a},
                                      {".lora_B", &x.b},
                                      {".lora_gate", &x.gate}}) {
            testing::expect_differences(linear + part, gradients.at(linear + part), *trained,
                                        trained == &x.gate, objective_with);
        }
        dense.set(name, x.effective());
    }
}

}  // namespace sora_test
}  // namespace switchyard
