// RANKS: 1 2 3 4
// The sharded optimizer on every layout: the global norm counts replicated values once, gradients arrive at
// their owner summed in rank order, and values that are not finite stop all ranks before the update.
#include <gtest/gtest.h>

#include <bit>

#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "support/hooked_method.hpp"
#include "support/layouts.hpp"
#include "support/temporary_directory.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using test::message_of;
using test::values_of;
using testing::HookedMethod;
using testing::tiny_config;
using testing::TinyRun;

std::vector<float> floats(Tensor t) {
    const test::Values values = values_of(t);
    return {values.begin(), values.end()};
}

std::vector<std::string> method(const std::string& name, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--method.name=" + name, "--model.num_layers=1", "--data.seq_len=4"});
    return more;
}

TEST(OptimizerTest, NormCountsReplicatedValuesOnce) {
    for (const char* name : {"full", "lora", "switchlora", "galore", "muon"}) {
        const Config config = tiny_config(method(name, {"--optim.clip_norm=0"}));
        const Topology one = testing::serial();
        TinyRun reference(config, one);
        double expected = 0;
        HookedMethod::install(reference.state()).before_reduction = [&] {
            for (Parameter* p : reference.state().model.parameters())
                for (double g : values_of(p->gradient)) expected += g * g;
        };
        const double norm = reference.step().grad_norm;
        EXPECT_NEAR(norm, std::sqrt(expected), 1e-14 * norm);
        testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
            EXPECT_NEAR(TinyRun(here, topology).step().grad_norm, norm, 1e-13 * norm) << name;
        });
    }
}

TEST(OptimizerTest, ClippingScalesTheUpdateByTheGlobalNorm) {
    // At the first step AdamW moves by lr g / (|g| + eps): with a huge eps by lr c g / eps, c the clip
    // coefficient.
    testing::for_each_layout(
        tiny_config(method("full", {"--optim.eps=1e6", "--optim.weight_decay=0", "--optim.clip_norm=0.25",
                                    "--optim.warmup_steps=0", "--optim.lr=1000", "--optim.dense_lr=3000"})),
        [&](const Config& here, const Topology& topology) {
            TinyRun run(here, topology);
            Optimizer& optimizer = run.state().optimizer;
            std::vector<test::Values> before;
            HookedMethod::install(run.state()).after_reduction = [&] {
                for (OwnedParameter& owned : optimizer.owned())
                    before.push_back(values_of(owned.parameter().value));
            };
            const StepResult result = run.step();
            ASSERT_GT(result.grad_norm, 0.25);
            EXPECT_EQ(result.lr, 1000);
            for (std::size_t k = 0; k < optimizer.owned().size(); ++k) {
                const OwnedParameter& owned = optimizer.owned()[k];
                const Parameter& p = owned.parameter();
                const double lr = p.shard.name.ends_with("_proj.weight") ? 1000 : 3000,
                             clip = 0.25 / result.grad_norm;
                const test::Values now = values_of(p.value), gradient = values_of(p.gradient);
                for (std::int64_t i = 0; i < p.value.size(); ++i) {
                    if (!owned.mine(static_cast<std::int32_t>(i / owned.width()))) continue;
                    const double step = before[k][i] - now[i];
                    const double expected = lr * clip * gradient[i] / 1e6;
                    ASSERT_NEAR(step, expected, 1e-6 * std::fabs(expected) + 1e-14) << p.shard.name;
                }
            }
        });
}

TEST(OptimizerTest, test_finding_07_gains_of_norms_decay_only_when_asked) {
    // Without gradients AdamW only decays: p <- (1 - lr weight_decay) p.
    for (const bool decay_norms : {false, true})
        for (const char* name : {"full", "switchlora"})
            testing::for_each_layout(
                tiny_config(method(name, {"--optim.weight_decay=0.25", "--optim.lr=0.5",
                                          "--optim.dense_lr=0.5", "--optim.warmup_steps=0",
                                          decay_norms ? "--optim.decay_norms=true" : "--run.seed=0"})),
                [&](const Config& here, const Topology& topology) {
                    TinyRun run(here, topology);
                    HookedMethod::install(run.state()).before_reduction = [&] {
                        run.state().optimizer.zero_gradients();
                    };
                    std::vector<double> before;
                    for (Parameter* p : run.state().model.parameters())
                        before.push_back(values_of(p->value)[0]);
                    run.step();
                    std::size_t k = 0;
                    for (Parameter* p : run.state().model.parameters()) {
                        const bool decays = decay_norms || p->role != ParameterRole::norm;
                        const double expected = before[k++] * (decays ? 0.875 : 1);
                        EXPECT_DOUBLE_EQ(values_of(p->value)[0], expected) << name << " " << p->shard.name;
                    }
                });
}

/// The values `mine` of every rank, in rank order.
std::vector<std::vector<float>> gathered(const Comm& comm, const std::vector<float>& mine) {
    std::vector<float> all(mine.size() * comm.size());
    SWITCHYARD_MPI(MPI_Allgather(mine.data(), static_cast<int>(mine.size()), MPI_FLOAT, all.data(),
                                 static_cast<int>(mine.size()), MPI_FLOAT, comm.handle()));
    std::vector<std::vector<float>> ranks;
    for (int p = 0; p < comm.size(); ++p)
        ranks.emplace_back(all.begin() + p * mine.size(), all.begin() + (p + 1) * mine.size());
    return ranks;
}

TEST(OptimizerTest, OwnersSumInRankOrderWhatTravelled) {
    for (const char* travelling : {"f32", "bf16"})
        for (const char* name : {"full", "switchlora"})
            testing::for_each_layout(
                tiny_config(
                    method(name, {"--run.dtype=f32", std::string("--optim.gradient_dtype=") + travelling})),
                [&](const Config& here, const Topology& topology) {
                    TinyRun run(here, topology);
                    std::vector<std::vector<float>> sums;
                    HookedMethod& hooks = HookedMethod::install(run.state());
                    std::deque<OwnedParameter>& all = run.state().optimizer.owned();
                    hooks.before_reduction = [&] {
                        for (const OwnedParameter& owned : all) {
                            const Comm& group = *owned.owners().group;
                            auto parts = gathered(group, floats(owned.parameter().gradient));
                            const bool rounded = std::string(travelling) == "bf16" && group.size() > 1;
                            std::vector<float>& sum = sums.emplace_back(parts[0].size(), 0.0f);
                            for (const std::vector<float>& part : parts)
                                for (std::size_t i = 0; i < part.size(); ++i) {
                                    const float travelled = rounded ? to_f32(to_bf16(part[i])) : part[i];
                                    sum[i] = &part == &parts[0] ? travelled : sum[i] + travelled;
                                }
                        }
                    };
                    hooks.after_reduction = [&] {
                        for (std::size_t k = 0; k < all.size(); ++k) {
                            const std::vector<float> now = floats(all[k].parameter().gradient);
                            for (std::size_t i = 0; i < now.size(); ++i)
                                if (all[k].mine(static_cast<std::int32_t>(i / all[k].width()))) {
                                    ASSERT_EQ(now[i], sums[k][i])
                                        << name << " " << all[k].parameter().shard.name << " " << i;
                                }
                        }
                    };
                    run.step();
                });
}

/// The parameter whose name has this ending; every rank of every layout has it.
Parameter& parameter(TrainState& state, const std::string& ending) {
    for (Parameter* p : state.model.parameters())
        if (p->shard.name.ends_with(ending)) return *p;
    throw std::runtime_error(ending);
}

std::vector<test::Values> masters(Optimizer& optimizer) {
    std::vector<test::Values> all;
    for (OwnedParameter& owned : optimizer.owned())
        for (std::int32_t row = 0; row < static_cast<std::int32_t>(owned.owners().owner.size()); ++row) {
            if (!owned.mine(row)) continue;
            for (const Tensor& t : {owned.master(row), owned.m(row), owned.v(row)})
                all.push_back(values_of(t));
        }
    return all;
}

TEST(OptimizerTest, OneBadNumberOnOneRankStopsAllAndIsNamed) {
    const std::vector<std::string> names{"lm_head.weight",   "input_layernorm.weight", "k_proj.lora_A",
                                         "o_proj.lora_A",    "gate_proj.lora_B",       "down_proj.lora_B",
                                         "model.norm.weight"};
    // No switches, because these would go on without the update.
    const Config config = tiny_config(method("switchlora", {"--method.switch_interval=1000000"}));
    const Topology one = testing::serial();
    const double expected = TinyRun(config, one).losses(3)[2];
    testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
        const bool last = topology.world.rank() == topology.world.size() - 1;
        TinyRun run(here, topology);
        run.losses(2);
        const auto before = masters(run.state().optimizer);
        std::size_t bad = 0;
        HookedMethod::install(run.state()).before_reduction = [&] {
            const double value = bad % 2 ? std::numeric_limits<double>::quiet_NaN() : -HUGE_VAL;
            for (std::size_t later = bad; last && later < names.size(); ++later)  // the first is named
                test::set_value(parameter(run.state(), names[later]).gradient, 1, value);
        };
        for (; bad < names.size(); ++bad) {
            const std::string message = message_of<UserError>([&] { run.step(); });
            EXPECT_CONTAINS(message, "step 3: loss");
            EXPECT_CONTAINS(message, "first bad gradient: ");
            EXPECT_CONTAINS(message, names[bad]);
            EXPECT_TRUE(masters(run.state().optimizer) == before) << "an update was made";
            EXPECT_EQ(run.state().step, 2);
        }
        EXPECT_NEAR(run.step().loss, expected, 1e-11 * expected) << "with good gradients the run goes on";
    });
}

}  // namespace
}  // namespace switchyard
