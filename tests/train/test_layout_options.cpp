// RANKS: 1 2 3 4
// Options of model, data, method and layout: the same 20 losses on every layout as on one process, padding
// that stays zero, frozen weights that may be sharded.
#include <gtest/gtest.h>

#include "core/processor.hpp"
#include "support/layouts.hpp"
#include "support/methods.hpp"
#include "support/serial_losses.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace layout_options_test {

using testing::tiny_config;
using testing::TinyRun;

/// A switch is made after six. A GPU may be emulated.
int num_steps() {
    return backend::processor().is_gpu ? 8 : 20;
}

struct Case {
    const char* name;
    std::vector<std::string> arguments;
    double tolerance = 1e-11;  // relative
};

std::vector<std::string> switching(std::vector<std::string> more) {
    more.insert(more.end(), {"--data.seq_len=6", "--method.switch_interval=6", "--method.freeze_steps=3",
                             "--method.switch_ratio=1", "--model.num_layers=1"});
    return more;
}

/// bf16: activations, partial sums over tp and values that are sent are rounded to 8 bits, and differences of
/// the first step grow over 20 steps. Measured on 1 and 2 ranks: 1.2e-4.
constexpr double bf16_tolerance = 4e-3;

const std::vector<Case> cases{
    {"GroupedQueries", {"--model.hidden_size=48", "--model.num_heads=24", "--model.num_kv_heads=12"}},
    {"TiedEmbeddings", {"--model.tie_embeddings=true"}},
    {"MaskedDocuments", {"--data.mask_documents=true"}},
    {"Wsd", {"--optim.schedule=wsd", "--optim.decay_ratio=0.3"}},
    {"RandomOrder", {"--method.switch_order=random"}},
    {"FixedSlotsOfAPartialLap", {"--parallel.rotate=false", "--method.rank=7"}},
    {"PartialLap", {"--method.rank=9"}},
    {"MoreSlotsThanSpareCandidates", {"--method.rank=20"}},
    {"AllCandidatesActive", {"--method.rank=24"}},
    {"OneSlot", {"--method.rank=1"}},
    {"ThreeBlocksSharded", {"--model.num_layers=3", "--parallel.shard_frozen=true"}},
    {"ShardedRandomOrder",
     {"--parallel.shard_frozen=true", "--method.switch_order=random", "--method.rank=5"}},
    {"Bf16", {"--run.dtype=bf16"}, bf16_tolerance},
    {"Bf16WithF32BankSharded",
     {"--run.dtype=bf16", "--method.bank_dtype=f32", "--parallel.shard_frozen=true"},
     bf16_tolerance},
    {"Bf16Gradients", {"--run.dtype=bf16", "--optim.gradient_dtype=bf16"}, bf16_tolerance},
};

class LayoutOptions : public ::testing::TestWithParam<Case> {};

/// One process takes four sequences at a time, the layouts take other numbers, so that accumulation is
/// compared, too.
TEST_P(LayoutOptions, LossesEqualOneProcess) {
    Config config = tiny_config(switching(GetParam().arguments));
    config.data.micro_batch = 4;
    const std::vector<double> expected = testing::serial_losses(config, num_steps());
    EXPECT_LT(expected.back(), expected.front());
    testing::for_each_layout_in_few_passes(config, [&](const Config& here, const Topology& topology) {
        const std::vector<double> losses = TinyRun(here, topology).losses(num_steps());
        for (int step = 0; step < num_steps(); ++step)
            EXPECT_NEAR(losses[step], expected[step], GetParam().tolerance * expected[step])
                << "step " << step;
    });
}

INSTANTIATE_TEST_SUITE_P(Options, LayoutOptions, ::testing::ValuesIn(cases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(LayoutOptionsTest, ShardingFrozenWeightsChangesNoBit) {
    if (Comm::duplicate(MPI_COMM_WORLD).size() == 1) GTEST_SKIP() << "one rank has nothing to share out";
    for (const char* dtype : {"f64", "f32", "bf16"})
        for (const char* name : {"lora", "switchlora", "relora", "galore", "riemannian", "melora", "flatlora",
                                 "loft", "pclora"}) {
            std::vector<std::string> arguments{std::string("--run.dtype=") + dtype,
                                               std::string("--method.name=") + name, "--data.seq_len=6"};
            if (name == std::string("switchlora")) arguments = switching(arguments);
            if (name == std::string("relora"))
                arguments.insert(arguments.end(), {"--method.merge_interval=3", "--method.restart_warmup=1"});
            testing::for_each_layout_in_few_passes(
                tiny_config(arguments), [&](Config here, const Topology& topology) {
                    const std::vector<double> whole = TinyRun(here, topology).losses(8);
                    here.parallel.shard_frozen = true;
                    EXPECT_EQ(TinyRun(here, topology).losses(8), whole) << dtype << " " << name;
                });
        }
}

/// Elements outside `shard`'s valid rows and columns.
void expect_zero_padding(const std::string& name, Tensor t, std::int64_t rows, std::int64_t cols) {
    if (t.empty() || t.shape().rank() != 2) return;
    const test::Values values = test::values_of(t);
    for (std::int64_t i = 0; i < t.dim(0); ++i)
        for (std::int64_t j = 0; j < t.dim(1); ++j)
            if (i >= rows || j >= cols) {
                ASSERT_EQ(values[i * t.dim(1) + j], 0) << name << " at " << i << ", " << j;
            }
}

TEST(LayoutOptionsTest, PaddingStaysZero) {
    for (const std::string& name : testing::all_methods())
        for (const char* sharded : {"false", "true"}) {
            std::vector<std::string> arguments = testing::calm_settings(name, 3);
            arguments.insert(arguments.end(), {"--data.seq_len=6", "--model.num_layers=1",
                                               std::string("--parallel.shard_frozen=") + sharded});
            testing::for_each_layout_in_few_passes(tiny_config(arguments), [&](const Config& here,
                                                                               const Topology& topology) {
                TinyRun run(here, topology);
                run.losses(6);
                std::int64_t padded = 0;
                for (Parameter* p : run.state().model.parameters()) {
                    expect_zero_padding(p->shard.name, p->value, p->shard.rows, p->shard.cols);
                    expect_zero_padding(p->shard.name + " gradient", p->gradient, p->shard.rows,
                                        p->shard.cols);
                    if (p->value.shape().rank() == 2)
                        padded += p->value.size() - p->shard.rows * p->shard.cols;
                }
                EXPECT_GT(all_reduce_sum(topology.world, static_cast<double>(padded)), 0);
                for (Linear* linear : run.state().model.linears()) {
                    if (!linear->frozen()) continue;
                    const FrozenBase& base = linear->base();
                    expect_zero_padding(linear->name(), base.words.hi, base.slice.valid, linear->in().count);
                }
            });
        }
}

}  // namespace layout_options_test
}  // namespace switchyard
