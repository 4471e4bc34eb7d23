// RANKS: 1 2 3 4
// DoRA on every layout against a reference on one process (reference/dora.hpp) over 100 steps in f64; the
// start is the base model; gradients are central differences of the loss, with the norm held fixed where it
// is detached.
#include <gtest/gtest.h>

#include "reference/dora.hpp"
#include "support/dense_model.hpp"
#include "support/reference_run.hpp"

namespace switchyard {
namespace dora_test {

using reference::Array;
using reference::DoraMatrix;
using reference::Trained;
using testing::tiny_config;
using testing::TinyRun;

std::vector<std::string> arguments_of(std::vector<std::string> more) {
    more.insert(more.begin(), {"--method.name=dora", "--method.rank=5", "--method.alpha=4",
                               "--model.init_std=0.2", "--model.num_layers=1", "--optim.lr=0.003",
                               "--optim.eps=1e-4", "--optim.schedule=constant", "--optim.warmup_steps=0"});
    return more;
}

void expect_reference(const std::vector<std::string>& arguments, int steps) {
    const Config config = tiny_config(arguments_of(arguments));
    const auto make = [&](const std::string& linear, int m, int n) {
        const int r = static_cast<int>(option_integer(config.method, "rank"));
        DoraMatrix x(m, n, r, option_real(config.method, "alpha"),
                     option_text(config.method, "norm_gradient") == "exact");
        const std::uint64_t stream = stream_key(config.run.seed, linear + ".lora_A");
        for (int i = 0; i < r * n; ++i)
            x.a.numbers[i].value = (2 * uniform(stream, i) - 1) / std::sqrt(static_cast<double>(n));
        return x;
    };
    testing::expect_reference<DoraMatrix>(config, steps, make, 1e-10);
}

TEST(Dora, DetachedEqualsOneProcess) {
    expect_reference({}, 100);
}

TEST(Dora, ExactEqualsOneProcess) {
    expect_reference({"--method.norm_gradient=exact"}, 100);
}

TEST(Dora, ShardedWeightsAndRecomputationEqualOneProcess) {
    expect_reference(
        {"--method.norm_gradient=exact", "--parallel.shard_frozen=true", "--model.recompute=true"}, 40);
}

/// B is zero at the start: rows are scaled by exactly one, so products use the base rounded once, as those of
/// a merged LoRA do.
TEST(Dora, StartsAsItsBase) {
    for (const char* dtype : {"f64", "f32", "bf16"}) {
        const std::vector<std::string> more{std::string("--run.dtype=") + dtype};
        testing::for_each_layout(tiny_config(arguments_of(more)), [&](Config here, const Topology& topology) {
            TinyRun run(here, topology);
            for (Linear* linear : run.state().model.linears()) {
                const auto effective = linear->adapter()->effective_weight();
                const test::Values g = test::values_of(effective->row_scale);
                for (std::int64_t i = 0; i < linear->out().count; ++i)
                    ASSERT_EQ(g[static_cast<std::size_t>(i)], 1) << linear->name() << " row " << i;
            }
            const double loss = run.step().loss;
            here.method = tiny_config({"--method.name=lora", "--method.rank=5"}).method;
            EXPECT_EQ(TinyRun(here, topology).step().loss, loss) << dtype;
        });
    }
}

/// Four elements of every factor and magnitude against differences of the loss of a dense model whose weights
/// are formed by the reference; `detached`: with the norms of the point where the gradient is taken.
void expect_differences(bool exact) {
    if (Comm::duplicate(MPI_COMM_WORLD).size() > 1) GTEST_SKIP() << "on one rank";
    const Config config = tiny_config(arguments_of(
        {std::string("--method.norm_gradient=") + (exact ? "exact" : "detached"), "--optim.clip_norm=1e9"}));
    const Topology one = testing::serial();
    TinyRun run(config, one);
    run.losses(5);  // so that no factor is zero
    TrainState& s = run.state();
    const testing::WholeState at = testing::whole_state(s);
    testing::DenseModel dense(config);
    std::map<std::string, DoraMatrix> matrices;
    for (const Parameter* p : dense.parameters()) {
        const std::string& name = p->shard.name;
        dense.set(name, at.at("/model/" + name));
        if (!name.ends_with("_proj.weight")) continue;
        const std::string stem = "/model/" + name.substr(0, name.size() - 7);
        DoraMatrix x(static_cast<int>(p->shard.rows), static_cast<int>(p->shard.cols), 5, 4, exact);
        x.w = at.at("/model/" + name);
        for (int i = 0; i < x.r * x.n; ++i) x.a.numbers[i].value = at.at(stem + ".lora_A")[i];
        for (int i = 0; i < x.m; ++i) {
            x.mag.value(i, 0) = at.at(stem + ".lora_magnitude")[i];
            for (int k = 0; k < x.r; ++k) x.b.value(k, i) = at.at(stem + ".lora_B")[i * x.r + k];
        }
        dense.set(name, x.effective());
        matrices.emplace(name, std::move(x));
    }
    // The same batch as that of the differences: step 5 would draw another.
    s.step = 0;
    std::map<std::string, test::Values> gradients;
    testing::HookedMethod::install(s).after_reduction = [&] {
        for (Parameter* p : s.model.parameters()) gradients[p->shard.name] = test::values_of(p->gradient);
    };
    EXPECT_NEAR(run.step().loss, dense.loss(), 1e-13);
    for (auto& [name, x] : matrices) {
        const std::string linear = name.substr(0, name.size() - 7);
        const Array fixed = x.norms();
        const auto loss_with = [&] {
            Array w = x.direction();
            const Array c = exact ? x.norms() : fixed;
            for (int i = 0; i < x.m * x.n; ++i) w[i] *= x.mag.value(i / x.n, 0) / c[i / x.n];
            dense.set(name, w);
            return dense.loss();
        };
        for (auto& [part, trained] : {std::pair<std::string, Trained*>{".lora_A", &x.a},
                                      {".lora_B", &x.b},
                                      {".lora_magnitude", &x.mag}}) {
            testing::expect_differences(linear + part, gradients.at(linear + part), *trained, false,
                                        loss_with);
        }
        dense.set(name, x.effective());
    }
}

TEST(Dora, DetachedGradientsAreDifferencesWithFixedNorms) {
    expect_differences(false);
}

TEST(Dora, ExactGradientsAreDifferences) {
    expect_differences(true);
}

}  // namespace dora_test
}  // namespace switchyard
