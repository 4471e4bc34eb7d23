// What low-rank training with switching saves at a realistic size: preset 1b, low rank 512, 8 data-parallel
// ranks, bf16, compared with full rank on the same layout. Nothing is allocated.
#include <gtest/gtest.h>

#include "config/option_table.hpp"
#include "methods/registry.hpp"
#include "plan/plan.hpp"

namespace switchyard {
namespace {

constexpr int ranks = 8;
constexpr std::int64_t steps = 4;

Plan plan_of(std::vector<std::string> arguments, int rank = 0) {
    arguments.insert(arguments.end(), {"--model.preset=1b", "--model.vocab_size=32100", "--data.tokens=none",
                                       "--data.micro_batch=4", "--data.global_batch=128", "--run.dtype=bf16",
                                       "--run.steps=40000"});
    Config config = parse_config("", "", arguments, method_options()).config;
    resolve_auto(config);
    validate(config, ranks);
    return make_plan(config, ranks, rank, steps);
}

Plan full_rank(int rank = 0) {
    return plan_of({"--method.name=full"}, rank);
}
Plan switched(bool shard_frozen, int rank = 0) {
    return plan_of({"--method.name=switchlora", "--method.rank=512", "--method.switch_interval=40",
                    std::string("--parallel.shard_frozen=") + (shard_frozen ? "true" : "false")},
                   rank);
}

/// Bytes that all ranks send in each of the planned steps.
std::vector<Traffic> sent_by_all(Plan (*plan)(int rank)) {
    std::vector<Traffic> sum(steps);
    for (int rank = 0; rank < ranks; ++rank) {
        const Plan of_rank = plan(rank);
        for (std::int64_t i = 0; i < steps; ++i)
            for (int g = 0; g < num_traffic_groups; ++g) sum[i].bytes[g] += of_rank.rank.steps[i].bytes[g];
    }
    return sum;
}

double of(const Traffic& traffic, TrafficGroup group) {
    return traffic.bytes[static_cast<int>(group)];
}

/// Parameters with the padding with which they are sent: feed-forward (5461) and vocabulary.
struct Travelling {
    static constexpr std::int64_t hidden = 2048, layers = 24, low_rank = 512;
    const std::int64_t ffn = padded_block(5461, 1, 0).padded, vocab = padded_block(32100, 1, 0).padded;
    const std::int64_t tables_and_norms = 2 * vocab * hidden + (2 * layers + 1) * hidden;
    const std::int64_t full = layers * (4 * hidden * hidden + 3 * hidden * ffn) + tables_and_norms;
    const std::int64_t low = layers * low_rank * (4 * 2 * hidden + 3 * (hidden + ffn)) + tables_and_norms;
};

/// Everything except activations and scratch: weights, copies and bank included.
double weights_states_gradients(const Plan& plan) {
    return plan.largest_memory.total() - plan.largest_memory.of(MemoryClass::activations) -
           plan.largest_memory.of(MemoryClass::workspace);
}

TEST(PlanOf1b, SendsWhatTheTrainableShareSaysAndLittleForSwitching) {
    const std::vector<Traffic> full = sent_by_all(full_rank),
                               low = sent_by_all([](int rank) { return switched(false, rank); });
    const ParameterCounts all = full_rank().parameters, trained = switched(false).parameters;
    EXPECT_EQ(all.trainable(), all.model());
    const double share = static_cast<double>(trained.trainable()) / static_cast<double>(all.trainable());
    EXPECT_NEAR(share, 0.455, 0.001);
    // Gradients are sent to their owners in f32, and values come back in bf16; what a rank owns itself is not
    // sent.
    const Travelling travelling;
    const double others = ranks - 1;
    for (const auto& [group, bytes] : {std::pair{TrafficGroup::gradients, 4}, {TrafficGroup::values, 2}}) {
        EXPECT_EQ(of(full[0], group), bytes * others * static_cast<double>(travelling.full));
        EXPECT_EQ(of(low[0], group), bytes * others * static_cast<double>(travelling.low));
        // After moves ranks own unequal numbers of vectors, and a message is as long as the longest.
        for (std::int64_t i = 0; i < steps; ++i)
            EXPECT_NEAR(of(low[i], group) / of(full[i], group), share, 0.001);
    }
    for (const Traffic& step : low) {
        const double switching = of(step, TrafficGroup::candidates) + of(step, TrafficGroup::moves);
        EXPECT_GT(of(step, TrafficGroup::candidates), 0);
        EXPECT_GT(of(step, TrafficGroup::moves), 0);
        const double trained_bytes = of(step, TrafficGroup::gradients) + of(step, TrafficGroup::values);
        EXPECT_LT(switching, 0.1 * trained_bytes);
        EXPECT_EQ(total_bytes(step), trained_bytes + switching);
    }
}

TEST(PlanOf1b, ShardedFrozenWeightsLeaveAtMost65PercentOfTheMemory) {
    const Plan full = full_rank(), kept = switched(false), sharded = switched(true);
    EXPECT_LE(weights_states_gradients(sharded), 0.65 * weights_states_gradients(full));
    EXPECT_EQ(sharded.largest_memory.of(MemoryClass::bank), kept.largest_memory.of(MemoryClass::bank));
    // Both words of a frozen weight are cut into 8 parts; kept merged copies come in addition.
    const auto frozen = static_cast<double>(kept.parameters.frozen);
    EXPECT_NEAR(kept.largest_memory.of(MemoryClass::frozen), 4 * frozen, 0.01 * frozen);
    EXPECT_NEAR(sharded.largest_memory.of(MemoryClass::frozen), 4 * frozen / ranks, 0.01 * frozen);
    EXPECT_NEAR(kept.largest_memory.of(MemoryClass::copies), 2 * frozen, 0.01 * frozen);
    EXPECT_NEAR(sharded.largest_memory.of(MemoryClass::copies), 2 * 2 * frozen / 24, 0.01 * frozen)
        << "two of 24 blocks";
    EXPECT_GT(of(sharded.rank.steps[0], TrafficGroup::frozen), 0);
}

}  // namespace
}  // namespace switchyard
