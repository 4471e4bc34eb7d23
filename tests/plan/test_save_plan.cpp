// RANKS: 1 2 4
// What a plan says of a save is what a save does: memory in the background, bytes and writes of the ranks.
#include <gtest/gtest.h>

#include "comm/collectives.hpp"
#include "io/checkpoint/state_io.hpp"
#include "plan/save_plan.hpp"
#include "support/layouts.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using testing::for_each_layout;
using testing::TinyRun;

TEST(SavePlanTest, IsArithmeticOnBytesRanksAndWindows) {
    Config config = testing::tiny_config({"--run.async_save=false"});
    const std::uint64_t mib = 1 << 20;
    const SavePlan one = plan_save(config, 3 * mib, 1);
    EXPECT_EQ(one.bytes, 3 * mib);
    EXPECT_EQ(one.rank_bytes, 3 * mib);
    EXPECT_EQ(one.rank_writes, 1u);
    EXPECT_EQ(one.longest_write, 3 * mib);
    EXPECT_EQ(one.memory, 0u) << "nothing is copied";
    EXPECT_DOUBLE_EQ(one.seconds(1e6), 3.145728);

    config.run.async_save = true;
    const SavePlan many = plan_save(config, 1001 * mib, 8);
    EXPECT_EQ(many.rank_bytes, 1001 * mib / 8);
    EXPECT_EQ(many.rank_writes, 32u) << "251 windows";
    EXPECT_EQ(many.longest_write, 4 * mib);
    EXPECT_EQ(many.memory, staged_bytes(1001 * mib, 8, 4 * mib));
}

/// A save of a run of many datasets and windows, from the copy to the last write.
class SavesOfARun : public ::testing::Test {
  protected:
    Comm world = Comm::duplicate(MPI_COMM_WORLD);
    test::TemporaryDirectory own;
    std::string folder = broadcast(world, own.path());

    void expect_as_planned(const Config& config, const Topology& topology) {
        TinyRun run(config, topology);
        const SavePlan plan = plan_save(config, checkpoint_bytes(run.state()), world.size());
        CheckpointWriter writer(world, folder + "/file.h5", static_cast<std::uint64_t>(config.io.window));
        StateIo io(writer);
        run.state().visit(io);
        ASSERT_EQ(writer.dataset_bytes(), plan.bytes);
        writer.stage();
        // The rest of the bound is for messages, which are gone by now: a round of 16 MiB would hold all.
        const std::uint64_t values = plan.memory - (world.size() > 1 ? 2 * plan.bytes : 0);
        EXPECT_LE(writer.staged_bytes(), values);
        const auto staged = static_cast<double>(writer.staged_bytes());
        EXPECT_GE(all_reduce_sum(world, staged), static_cast<double>(plan.bytes)) << "nothing is forgotten";
        EXPECT_GE(1.2 * all_reduce_max(world, staged), static_cast<double>(values)) << "no idle bound";
        writer.write_staged(CheckpointWriter::Threads::all);
        const CheckpointWriter::Written written = writer.written();
        EXPECT_LE(written.bytes, 2 * plan.rank_bytes);
        EXPECT_LE(written.writes, 2 * plan.rank_writes);
        const auto bytes = static_cast<double>(written.bytes);
        EXPECT_NEAR(all_reduce_sum(world, bytes), static_cast<double>(plan.bytes),
                    0.1 * static_cast<double>(plan.bytes))
            << "what lies between datasets is written, too";
        writer.commit();
    }
};

TEST_F(SavesOfARun, TakeMemoryAndWritesAsPlanned) {
    for (const char* sharded : {"true", "false"})
        for_each_layout(
            testing::tiny_config({"--method.name=switchlora", "--method.rank=4", "--model.hidden_size=48",
                                  "--model.num_layers=4", std::string("--parallel.shard_frozen=") + sharded,
                                  "--io.window=4096"}),
            [&](const Config& config, const Topology& topology) {
                SCOPED_TRACE(std::string("shard_frozen ") + sharded);
                expect_as_planned(config, topology);
            });
}

}  // namespace
}  // namespace switchyard
