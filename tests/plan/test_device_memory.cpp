// RANKS: 1 2 4
// BACK ENDS: all
// A run takes of the device exactly what `plan` says, in its steps, saves and restores, and pins on the host
// what `plan` says at most. On a CPU the arena is compared.
#include <gtest/gtest.h>

#include "comm/collectives.hpp"
#include "core/backend_memory.hpp"
#include "core/processor.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "plan/plan.hpp"
#include "support/layouts.hpp"
#include "support/methods.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using testing::tiny_config;
using testing::TinyRun;

void save_and_restore(TinyRun& run, const Topology& topology, const std::string& path) {
    {
        CheckpointWriter writer(topology.world, path);
        StateIo io(writer);
        run.state().visit(io);
        writer.commit();
    }
    const CheckpointReader reader(topology.world, path);
    StateIo io(reader);
    run.state().visit(io);
}

std::vector<std::string> keys_of(const std::string& method, const std::string& dtype) {
    std::vector<std::string> keys = testing::calm_settings(method, 2);
    keys.insert(keys.end(), {"--run.dtype=" + dtype, "--data.seq_len=4"});
    if (method != "full" && method != "muon") keys.push_back("--method.rank=6");
    return keys;
}

class DeviceMemory : public ::testing::TestWithParam<std::string> {};

TEST_P(DeviceMemory, IsWhatThePlanSays) {
    const bool is_gpu = backend::processor().is_gpu;
    std::size_t pinned = 0, planned_pinned = 0;
    for (const char* dtype : {"f32", "bf16"}) {
        const Config config = tiny_config(keys_of(GetParam(), dtype));
        testing::for_each_layout_in_few_passes(config, [&](const Config& here, const Topology& topology) {
            const Plan plan = make_plan(here, topology.world.size(), topology.world.rank(), 1);
            const double before = backend::used_bytes();
            backend::reset_peak_used_bytes();
            const test::TemporaryDirectory folder;
            const std::string file = broadcast(topology.world, folder.file("state.h5"));
            TinyRun run(here, topology);
            for (int step = 0; step < 3; ++step) run.step();
            save_and_restore(run, topology, file);
            run.step();
            EXPECT_EQ(memory_of(run.state().context.arena).total(), plan.rank.memory.total());
            if (!is_gpu) return;
            EXPECT_EQ(before, 0) << "memory of a state before";
            EXPECT_EQ(backend::used_bytes(), plan.rank.memory.total());
            EXPECT_EQ(backend::peak_used_bytes(), plan.rank.memory.total());
            pinned = backend::used_pinned_bytes();
            planned_pinned = static_cast<std::size_t>(plan.pinned_bytes);
            EXPECT_LE(pinned, planned_pinned);
        });
    }
    EXPECT_EQ(pinned, planned_pinned) << "by now every use has come";
    EXPECT_EQ(pinned > 0, is_gpu);
}

INSTANTIATE_TEST_SUITE_P(Methods, DeviceMemory, ::testing::ValuesIn(testing::all_methods()),
                         testing::name_of_method);

}  // namespace
}  // namespace switchyard
