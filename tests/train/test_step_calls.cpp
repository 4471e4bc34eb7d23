// RANKS: 1 2 4
// What a step asks of a back end: the host waits for results once, no memory is allocated, and a switch takes
// few kernel calls, however many vectors it replaces and whatever the low rank.
#include <gtest/gtest.h>

#include "core/call_counts.hpp"
#include "support/layouts.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using testing::tiny_config;
using testing::TinyRun;

/// Counting for the length of a scope.
struct Counting {
    Counting() { count_calls(true); }
    ~Counting() { count_calls(false); }
};

std::string text_of(const CallCounts& counts) {
    std::string text;
    for (const auto& [name, calls] : counts.kernels) text += name + " " + std::to_string(calls) + ", ";
    return text;
}

/// Runs steps with these settings on every layout; returns the largest switch in vectors. `always`: kernels
/// for each matrix after the update of every step, beside three for sums over ranks; `changed`: for each
/// matrix in a step that switches or merges.
std::int64_t expect_calls(std::vector<std::string> settings, int steps, std::int64_t always = 0,
                          std::int64_t changed = 2) {
    settings.insert(settings.end(), {"--data.seq_len=4", "--run.steps=40"});
    std::int64_t largest = 0;
    testing::for_each_layout(tiny_config(settings), [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        const auto matrices = static_cast<std::int64_t>(run.state().model.linears().size());
        const Counting scope;
        for (int t = 0; t < steps; ++t) {
            const std::int64_t switched = run.step().method.vectors_switched;
            largest = std::max(largest, switched);
            const StepCalls calls = calls_of_last_step();
            EXPECT_EQ(calls.total(Call::host_read), 1) << "step " << t;
            if (t > 0) {  // the scratch of a kernel may grow at its first call
                EXPECT_EQ(calls.total(Call::allocation), 0) << "step " << t;
            }
            const CallCounts& switching = calls[Phase::switching];
            EXPECT_LE(switching[Call::kernel],
                      always * matrices + (switched > 0 ? changed * matrices + 30 : always > 0 ? 4 : 1))
                << "step " << t << ", " << switched << " vectors: " << text_of(switching);
            EXPECT_LE(switching[Call::upload], 1) << "step " << t;
        }
    });
    return largest;
}

TEST(StepCalls, OfASwitchDoNotDependOnItsSize) {
    std::vector<std::int64_t> largest;
    for (const char* low_rank : {"6", "12"})
        for (const char* interval : {"2", "8"})
            largest.push_back(
                expect_calls({"--method.name=switchlora", std::string("--method.rank=") + low_rank,
                              std::string("--method.switch_interval=") + interval, "--method.freeze_steps=1",
                              "--method.switch_ratio=1000000"},
                             8));
    EXPECT_GT(largest[0], largest[1]);  // it switches more often
    EXPECT_GT(largest[2], largest[0]);  // it has more slots
}

TEST(StepCalls, AreReadOnceByEveryMethod) {
    for (const char* name : {"full", "lora", "muon"}) expect_calls({std::string("--method.name=") + name}, 2);
    for (const char* name : {"sora", "apollo", "riemannian", "melora", "flatlora", "loft", "pclora"})
        expect_calls({std::string("--method.name=") + name}, 2);
    expect_calls({"--method.name=lora", "--optim.state_bits=8", "--optim.min_8bit_size=0"}, 2);
    for (const char* gradient : {"detached", "exact"})  // norms of rows and what follows from them
        expect_calls({"--method.name=dora", std::string("--method.norm_gradient=") + gradient}, 2, 9);
}

/// A merge adds one product to each matrix, draws each A, and sets the masters of both factors. Pruning by
/// magnitude takes few calls for all of them; a drawn mask takes two for each moment.
TEST(StepCalls, OfAMergeDoNotDependOnItsSize) {
    for (const char* low_rank : {"6", "12"})
        for (const char* dtype : {"f64", "f32", "bf16"})
            for (const char* reset : {"zero", "magnitude", "random"}) {
                const bool random = std::string("random") == reset;
                const std::int64_t merged = expect_calls(
                    {"--method.name=relora", std::string("--method.rank=") + low_rank,
                     std::string("--run.dtype=") + dtype, std::string("--method.reset=") + reset,
                     "--method.merge_interval=2", "--method.restart_warmup=1"},
                    4, 0, random ? 5 + 8 : 5);
                EXPECT_EQ(merged, 2 * 7 * 2 * std::stoi(low_rank));
            }
}

}  // namespace
}  // namespace switchyard
