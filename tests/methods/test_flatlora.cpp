// RANKS: 1 2 3 4
// Flat-LoRA on every layout against a reference on one process (reference/flatlora.hpp) over 100 steps in f64;
// what noise leaves behind: nothing; noise of replicas; central differences at fixed noise.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "methods/registry.hpp"
#include "reference/flatlora.hpp"
#include "support/dense_model.hpp"
#include "support/reference_run.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace flatlora_test {

using reference::Array;
using reference::FlatLoraMatrix;
using reference::Trained;
using testing::tiny_config;
using testing::TinyRun;

/// Noise of half of the weights' size at the end.
std::vector<std::string> arguments_of(std::vector<std::string> more) {
    more.insert(more.begin(),
                {"--method.name=flatlora", "--method.rank=5", "--method.alpha=4", "--method.noise=0.5",
                 "--model.init_std=0.2", "--model.num_layers=1", "--optim.lr=0.003", "--optim.eps=1e-4",
                 "--optim.schedule=constant", "--optim.warmup_steps=0", "--run.steps=100"});
    return more;
}

FlatLoraMatrix matrix_of(const Config& config, const std::string& linear, int m, int n) {
    FlatLoraMatrix x(m, n, 5, 4);
    x.name = linear;
    x.noise = option_real(config.method, "noise");
    x.steps = static_cast<int>(config.run.steps);
    x.seed = config.run.seed;
    return x;
}

void expect_reference(const std::vector<std::string>& arguments, int steps) {
    const Config config = tiny_config(arguments_of(arguments));
    const auto make = [&](const std::string& linear, int m, int n) {
        FlatLoraMatrix x = matrix_of(config, linear, m, n);
        const std::uint64_t stream = stream_key(config.run.seed, linear + ".lora_A");
        for (int i = 0; i < x.r * n; ++i)
            x.a.numbers[i].value = (2 * uniform(stream, i) - 1) / std::sqrt(static_cast<double>(n));
        return x;
    };
    testing::expect_reference<FlatLoraMatrix>(config, steps, make, 1e-10);
}

TEST(FlatLora, EqualsOneProcess) {
    expect_reference({}, 100);
}

TEST(FlatLora, ShardedWeightsAndRecomputationEqualOneProcess) {
    expect_reference({"--run.steps=40", "--parallel.shard_frozen=true", "--model.recompute=true"}, 40);
}

/// The matrices at the values of a state, and the dense model at those of what is not adapted.
std::map<std::string, FlatLoraMatrix> matrices_at(const testing::WholeState& at, const Config& config,
                                                  testing::DenseModel& dense) {
    std::map<std::string, FlatLoraMatrix> matrices;
    for (const Parameter* p : dense.parameters()) {
        const std::string& name = p->shard.name;
        dense.set(name, at.at("/model/" + name));
        if (!name.ends_with("_proj.weight")) continue;
        const std::string linear = name.substr(0, name.size() - 7), stem = "/model/" + linear;
        FlatLoraMatrix x = matrix_of(config, linear, static_cast<int>(p->shard.rows), static_cast<int>(p->shard.cols));
        x.w = at.at("/model/" + name);
        for (int i = 0; i < x.r * x.n; ++i) x.a.numbers[i].value = at.at(stem + ".lora_A")[i];
        for (int k = 0; k < x.r; ++k)
            for (int i = 0; i < x.m; ++i) x.b.value(k, i) = at.at(stem + ".lora_B")[i * x.r + k];
        matrices.emplace(name, std::move(x));
    }
    return matrices;
}

/// A matrix and its factors as the only rank of tp has them.
FlatLoraMatrix local_matrix(const Config& config, const Linear& linear) {
    const int m = static_cast<int>(linear.out().size), n = static_cast<int>(linear.in().size);
    FlatLoraMatrix x = matrix_of(config, linear.name(), m, n);
    const test::Values w = test::values_of(linear.base().words.hi);
    for (int i = 0; i < m * n; ++i) x.w[i] = w[i / n * linear.in().padded + i % n];
    for (Parameter* p : linear.adapter()->parameters()) {
        Trained& to = p->transposed ? x.b : x.a;
        const test::Values values = test::values_of(p->value);
        for (int k = 0; k < x.r; ++k)
            for (int i = 0; i < to.cols; ++i) to.value(k, i) = values[k * p->value.dim(1) + i];
    }
    return x;
}

/// The words of frozen weights are those of the start, bit for bit, and an evaluation right after a step is one
/// of W + s B A.
TEST(FlatLora, NoiseLeavesNoTrace) {
    for (const char* dtype : {"f64", "bf16"}) {
        const Config config = tiny_config(arguments_of({std::string("--run.dtype=") + dtype}));
        testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
            TinyRun run(here, topology);
            TrainState& s = run.state();
            const auto base = [&] {
                testing::WholeState whole = testing::whole_state(s);
                std::erase_if(whole, [](const auto& x) { return !x.first.ends_with("_proj.weight"); });
                return whole;
            };
            const auto before = base();
            run.losses(10);
            EXPECT_EQ(base(), before);
            if (dtype[0] == 'b' || topology.world.size() > 1) return;
            const double loss = testing::batch_loss(run, 0);
            testing::DenseModel dense(config);
            for (const auto& [name, x] : matrices_at(testing::whole_state(s), config, dense)) dense.set(name, x.mean());
            EXPECT_NEAR(loss, dense.loss(), 1e-12 * loss);
        });
    }
}

/// In the middle of a step the copies that products use are W + s B A + E, E of the step and, if asked for, of the
/// data-parallel rank; factors stay the same on all ranks.
TEST(FlatLora, ReplicasHaveTheirOwnNoiseIfAsked) {
    for (const char* own : {"false", "true"}) {
        const Config config = tiny_config(arguments_of({std::string("--method.noise_per_replica=") + own}));
        testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
            TinyRun run(here, topology);
            TrainState& s = run.state();
            run.losses(7);
            std::map<std::string, FlatLoraMatrix> matrices;
            if (topology.tp_size() == 1)
                for (Linear* linear : s.model.linears()) matrices.emplace(linear->name(), local_matrix(config, *linear));
            testing::HookedMethod::install(s).after_reduction = [&] {
                for (Linear* linear : s.model.linears()) {
                    if (topology.tp_size() > 1) return;
                    const FlatLoraMatrix& x = matrices.at(linear->name());
                    const Array mean = x.mean(), e = x.noise_of(7, own[0] == 't' ? " replica " + std::to_string(topology.dp_rank()) : "");
                    const test::Values staged = test::values_of(linear->weight());
                    double largest = 0;
                    for (int i = 0; i < x.m * x.n; ++i)
                        largest = std::max(largest, std::fabs(staged[i / x.n * linear->in().padded + i % x.n] - mean[i] - e[i]));
                    EXPECT_LE(largest, 1e-13) << linear->name();
                }
            };
            if (topology.world.size() == 1) testing::batch_loss(run, 0);  // makes copies without noise
            run.step();
            for (Parameter* p : s.model.parameters()) {
                double sum = 0;
                for (double value : test::values_of(p->value)) sum = 1.0001 * sum + value;
                EXPECT_EQ(all_reduce_max(topology.dp, sum), sum) << p->shard.name;
            }
        });
    }
}

TEST(FlatLora, GradientsAreDifferencesAtFixedNoise) {
    if (Comm::duplicate(MPI_COMM_WORLD).size() > 1) GTEST_SKIP() << "on one rank";
    const Config config = tiny_config(arguments_of({"--optim.clip_norm=1e9", "--run.steps=10"}));
    const Topology one = testing::serial();
    TinyRun run(config, one);
    run.losses(5);
    TrainState& s = run.state();
    testing::DenseModel dense(config);
    auto matrices = matrices_at(testing::whole_state(s), config, dense);
    std::map<std::string, Array> noise;
    const auto set_weight = [&](const std::string& name) {
        Array v = matrices.at(name).mean();
        for (std::size_t i = 0; i < v.size(); ++i) v[i] += noise.at(name)[i];
        dense.set(name, v);
    };
    for (const auto& [name, x] : matrices) {
        noise[name] = x.noise_of(5);
        set_weight(name);
    }
    std::map<std::string, test::Values> gradients;
    testing::HookedMethod::install(s).after_reduction = [&] {
        for (Parameter* p : s.model.parameters()) gradients[p->shard.name] = test::values_of(p->gradient);
    };
    EXPECT_NEAR(run.step().loss, dense.loss(5), 1e-13);
    for (auto& [name, x] : matrices) {
        const std::string linear = name.substr(0, name.size() - 7);
        for (auto& [part, trained] : {std::pair<std::string, Trained*>{".lora_A", &x.a}, {".lora_B", &x.b}})
            testing::expect_differences(linear + part, gradients.at(linear + part), *trained, false, [&] {
                set_weight(name);
                return dense.loss(5);
            });
        set_weight(name);
    }
}

TEST(FlatLora, NoiseOfReplicasIsRefusedWhereTheyShareCopies) {
    const Config config =
        tiny_config(arguments_of({"--method.noise_per_replica=true", "--parallel.shard_frozen=true"}));
    const std::string message = test::message_of<UserError>([&] { validate_run(config, 1); });
    EXPECT_CONTAINS(message, "cannot have noise of their own");
}

}  // namespace flatlora_test
}  // namespace switchyard
