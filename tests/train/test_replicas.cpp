// RANKS: 1 2 4
// Copies of a weight on several ranks agree at every step of a healthy run, and a single flipped bit on any
// rank is found wherever another rank has the same weight.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/host.hpp"
#include "kernels/transfer.hpp"
#include "support/layouts.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_run.hpp"
#include "train/replicas.hpp"

namespace switchyard {
namespace replicas_test {

using testing::tiny_config;
using testing::TinyRun;

void flip_last_bit(Tensor tensor) {
    std::vector<std::uint8_t> bytes(tensor.bytes());
    kernels::download(tensor, bytes.data());
    bytes.back() ^= 128;
    kernels::upload(bytes.data(), tensor);
}

/// A tensor that several ranks may hold, and its name in messages.
struct Victim {
    std::string name;
    Tensor tensor;
    bool over_dp, over_tp;
};
std::vector<Victim> victims(TrainState& state) {
    std::vector<Victim> all;
    const bool sharded = state.context.config.parallel.shard_frozen;
    for (const Linear* linear : state.model.linears())
        if (linear->frozen()) {
            all.push_back({"frozen " + linear->shard().name, linear->base().words.hi, !sharded, false});
            if (const Tensor lo = linear->base().words.lo; !lo.empty())
                all.push_back({"low words of frozen " + linear->shard().name, lo, !sharded, false});
        }
    for (const Parameter* p : state.model.parameters())
        all.push_back({p->shard.name, p->value, true, p->tp_gradient != TpGradient::own});
    if (Shadow* shadow = state.model.shadow())
        for (const Parameter* p : shadow->copies())
            all.push_back(
                {"the teacher's " + p->shard.name, p->value, true, p->tp_gradient != TpGradient::own});
    return all;
}

struct Case {
    const char* name;
    std::vector<std::string> arguments;
};
const std::vector<Case> cases{
    {"Full", {"--method.name=full"}},
    {"Lora", {"--method.name=lora", "--run.dtype=f32"}},
    {"SwitchloraBf16", {"--run.dtype=bf16", "--method.switch_interval=6", "--method.freeze_steps=3"}},
    {"ReloraBf16",
     {"--method.name=relora", "--run.dtype=bf16", "--method.merge_interval=5", "--method.restart_warmup=2"}},
    {"PcloraBf16", {"--method.name=pclora", "--run.dtype=bf16", "--model.num_layers=1"}},
    {"SwitchloraSharded",
     {"--parallel.shard_frozen=true", "--method.switch_interval=6", "--method.freeze_steps=3"}},
};

class Replicas : public ::testing::TestWithParam<Case> {};

TEST_P(Replicas, AgreeUntilABitFlips) {
    testing::for_each_layout_in_few_passes(tiny_config(GetParam().arguments), [](const Config& config,
                                                                                 const Topology& topology) {
        TinyRun run(config, topology);
        const Comm& world = topology.world;
        for (int step = 0; step < 12; ++step) {
            run.step();
            ASSERT_NO_THROW(compare_replicas(run.state())) << "step " << step;
        }
        int turn = 0;
        for (const Victim& victim : victims(run.state())) {
            const int rank = turn++ % world.size();
            const auto flip = [&] {
                if (world.rank() == rank) flip_last_bit(victim.tensor);
            };
            const bool has_copies =
                (victim.over_dp && topology.dp_size() > 1) || (victim.over_tp && topology.tp_size() > 1);
            flip();
            const std::string text = test::message_of<AgreedError>([&] { compare_replicas(run.state()); });
            flip();
            if (!has_copies) {
                EXPECT_EQ(text, "") << victim.name;
                continue;
            }
            EXPECT_EQ(text.find("step 12: " + victim.name + " on rank "), 0u) << victim.name << ": " << text;
            EXPECT_CONTAINS(text, "rank " + std::to_string(rank) + " (" + host_name() + ")");
        }
        EXPECT_NO_THROW(compare_replicas(run.state())) << "all bits are back";
    });
}

INSTANTIATE_TEST_SUITE_P(Methods, Replicas, ::testing::ValuesIn(cases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace replicas_test
}  // namespace switchyard
