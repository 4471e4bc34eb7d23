// RANKS: 1 2
// Only the first two steps of a run allocate back-end memory: for what kernels of a CPU keep. A GPU's
// allocate nothing at all, and what a state takes of the device and pins on the host is what `plan` says.
#include <gtest/gtest.h>

#include "core/backend_memory.hpp"
#include "core/call_counts.hpp"
#include "core/processor.hpp"
#include "support/layouts.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using testing::tiny_config;
using testing::TinyRun;

const std::vector<std::vector<std::string>> methods{
    {"--method.name=full"},
    {"--method.name=lora", "--method.rank=6"},
    {"--method.name=switchlora", "--method.rank=6", "--method.switch_interval=2", "--method.freeze_steps=1",
     "--method.switch_ratio=1"},
    {"--method.name=lora", "--method.rank=6", "--method.strategy=weight_gradient"},
    {"--method.name=relora", "--method.rank=6", "--method.merge_interval=2", "--method.restart_warmup=1",
     "--method.reset=magnitude"},
    {"--method.name=relora", "--method.rank=6", "--method.merge_interval=2", "--method.restart_warmup=1",
     "--method.reset=random"},
    {"--method.name=galore", "--method.rank=6", "--method.update_interval=2"},
    {"--method.name=galore", "--method.rank=6", "--method.update_interval=2", "--method.basis=svd"},
    {"--method.name=muon"},
    {"--method.name=apollo", "--method.rank=6", "--method.update_interval=2"},
    {"--method.name=riemannian", "--method.rank=6"},
    {"--method.name=melora", "--method.rank=6"},
    {"--method.name=flatlora", "--method.rank=6"},
    {"--method.name=loft", "--method.rank=6"},
    {"--method.name=full", "--optim.state_bits=8", "--optim.min_8bit_size=0"},
    {"--method.name=pclora", "--method.rank=6", "--method.decay_steps=6", "--model.recompute=true"},
    {"--method.name=full", "--model.hidden_size=48", "--model.num_heads=24", "--model.num_kv_heads=12",
     "--data.mask_documents=true", "--model.recompute=true"}};

TEST(StepAllocations, NoneAfterTheFirstSteps) {
    const bool is_gpu = backend::processor().is_gpu;
    // Emulated steps of two ranks take long, and what ranks add, collectives and their conversions, bf16 has
    // all of.
    std::vector<std::string> dtypes{"f64", "f32", "bf16"};
    if (is_gpu && Comm::duplicate(MPI_COMM_WORLD).size() > 1) dtypes = {"bf16"};
    for (const std::vector<std::string>& method : methods)
        for (const std::string& dtype : dtypes) {
            std::vector<std::string> keys = method;
            keys.insert(keys.end(),
                        {"--run.dtype=" + dtype, "--data.global_batch=4", "--data.micro_batch=1"});
            const Config config = tiny_config(keys);
            testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
                count_calls(true);
                TinyRun run(here, topology);
                EXPECT_GE(calls_since_phase()[Call::allocation], 1) << "the arena";
                std::int64_t switched = 0;
                for (int step = 0; step < 8; ++step) {
                    switched += run.step().method.vectors_switched;
                    const StepCalls calls = calls_of_last_step();
                    EXPECT_GT(calls[Phase::forward][Call::kernel], 0);
                    EXPECT_EQ(
                        calls[Phase::data][Call::upload],
                        (here.data.mask_documents ? 3 : 2) * (here.data.global_batch / topology.dp_size()));
                    if (step < 2 && !is_gpu) continue;
                    EXPECT_EQ(calls.total(Call::allocation), 0)
                        << here.method.name << " " << dtype << ", step " << step + 1;
                }
                EXPECT_EQ(switched > 0, here.method.name == "switchlora" || here.method.name == "relora" ||
                                            here.method.name == "galore");
                count_calls(false);
            });
        }
}

}  // namespace
}  // namespace switchyard
