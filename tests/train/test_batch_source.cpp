// RANKS: 1 2 3 4
// ALONE: it stands between the program and MPI.
// A micro-batch is read once for a tensor-parallel group and comes in one message: what arrives is what was
// read, errors arrive too, and ranks that do not read need no file.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/layouts.hpp"
#include "support/tiny_run.hpp"
#include "support/token_files.hpp"

namespace {

int broadcasts = 0;  // calls of MPI_Bcast

}  // namespace

extern "C" int MPI_Bcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    ++broadcasts;
    return PMPI_Bcast(data, count, type, root, comm);
}

namespace switchyard {
namespace {

using testing::for_each_layout;
using testing::tiny_config;
using testing::TinyRun;

Config config_of(bool masked, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--data.micro_batch=1",
                               std::string("--data.mask_documents=") + (masked ? "true" : "false")});
    return tiny_config(more);
}

double sent_batches(TinyRun& run) {
    return run.traffic().bytes[static_cast<int>(TrafficGroup::batches)];
}

TEST(BatchSourceTest, IsCalledOncePerGroupAndAllGetWhatItGives) {
    for (const bool masked : {false, true})
        for_each_layout(
            config_of(masked, {"--data.micro_batch=3"}), [&](const Config& here, const Topology& topology) {
                if (12 % (3 * topology.dp_size()) != 0) return;
                TinyRun run(here, topology);
                const ModelContext& context = run.state().context;
                const BatchSource synthetic = testing::synthetic_tokens(here);
                int calls = 0;
                const BatchSource counted = [&](std::int64_t first, std::int64_t count, Batch& batch) {
                    ++calls;
                    synthetic(first, count, batch);
                };
                Batch batch;
                for (const std::int64_t first : {0, 5, 100}) {
                    const std::int64_t mine = first + 1000 * topology.dp_rank();
                    Batch expected;
                    synthetic(mine, 3, expected);
                    calls = broadcasts = 0;
                    const double before = sent_batches(run);
                    read_once_per_tp_group(context, counted, mine, batch);
                    EXPECT_EQ(calls, topology.tp_rank() == 0 ? 1 : 0);
                    EXPECT_EQ(broadcasts, topology.tp_size() > 1 ? 1 : 0);
                    EXPECT_EQ(batch.num_sequences, 3);
                    EXPECT_EQ(batch.seq_len, here.data.seq_len);
                    EXPECT_EQ(batch.tokens, expected.tokens);
                    EXPECT_EQ(batch.targets, expected.targets);
                    EXPECT_EQ(batch.first_key, expected.first_key);
                    EXPECT_EQ(batch.first_key.empty(), !masked);
                    EXPECT_EQ(sent_batches(run) - before, bytes_of_batch(context));
                    EXPECT_EQ(bytes_of_batch(context) > 0, topology.tp_size() > 1);
                }
            });
}

TEST(BatchSourceTest, AStepBroadcastsItsMicroBatchesAndNothingElse) {
    for_each_layout(config_of(false), [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        run.step();
        broadcasts = 0;
        run.step();
        EXPECT_EQ(broadcasts, topology.tp_size() > 1 ? 12 / topology.dp_size() : 0);
    });
}

/// The rank that reads for one group fails: its group gets the error, the other groups get their batches.
TEST(BatchSourceTest, AnErrorIsThatOfTheGroup) {
    for_each_layout(config_of(true), [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        const ModelContext& context = run.state().context;
        const BatchSource synthetic = testing::synthetic_tokens(here);
        const bool fails_here = topology.dp_rank() == topology.dp_size() - 1;
        const auto broken = [&](auto error) -> BatchSource {
            return [&, error](std::int64_t first, std::int64_t count, Batch& batch) {
                if (fails_here) throw error;
                synthetic(first, count, batch);
            };
        };
        Batch batch;
        const auto read = [&](const BatchSource& source) {
            read_once_per_tp_group(context, source, 4, batch);
        };
        const std::string gone = "the disk is gone";
        const std::string expected = fails_here ? gone : "";
        EXPECT_EQ(test::message_of<UserError>([&] { read(broken(UserError(gone))); }), expected);
        read(synthetic);
        EXPECT_EQ(batch.tokens.size(), static_cast<std::size_t>(here.data.seq_len));
        // The rank that reads reports the error, and the others leave that to it.
        const BatchSource silent = broken(std::logic_error(""));
        if (!fails_here)
            EXPECT_NO_THROW(read(silent));
        else if (topology.tp_rank() == 0)
            EXPECT_THROW(read(silent), std::logic_error);
        else
            EXPECT_THROW(read(silent), AgreedError);
    });
}

class FromAFile : public ::testing::Test {
  protected:
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    test::TemporaryDirectory own;
    const std::string path = broadcast(world, own.file("t.h5"));
    void SetUp() override {
        agree_on(world, [&] {
            if (world.rank() == 0)
                tokenize(test::quiet_options(own.write("a.txt", test::sample_text(200, 4)), path));
        });
    }
    void TearDown() override { barrier(world); }
};

/// Three steps and an evaluation in which only those that read have a file, against all reading for
/// themselves on one process.
TEST_F(FromAFile, RanksThatDoNotReadNeedNoFile) {
    for (const bool masked : {false, true}) {
        const Config config = config_of(masked, {"--model.vocab_size=400"});
        std::vector<double> alone;
        const auto losses = [&](TinyRun& run, const TokenFile& file) {
            const TokenLoader loader(file, run.config().data.seq_len, 5, masked);
            PhaseTimer timer;
            std::vector<double> all;
            for (int step = 0; step < 3; ++step)
                all.push_back(train_step(run.state(), loader, 7, timer).loss);
            all.push_back(validation_loss(run.state(), loader));
            return all;
        };
        {
            const Topology one = testing::serial();
            TinyRun run(config, one);
            alone = losses(run, TokenFile(path));
        }
        for_each_layout(config, [&](const Config& here, const Topology& topology) {
            const std::string mine = topology.tp_rank() == 0 ? path : "/nowhere/t.h5";
            const TokenFile file = open_token_file(mine, world);
            open_for_batches(topology, file);
            TinyRun run(here, topology);
            const std::vector<double> found = losses(run, file);
            // f64: sums of few terms are formed in other orders.
            for (std::size_t i = 0; i < alone.size(); ++i) EXPECT_NEAR(found[i], alone[i], 1e-12) << i;
        });
    }
}

TEST_F(FromAFile, AReaderThatCannotOpenItEndsAll) {
    for_each_layout(config_of(false), [&](const Config&, const Topology& topology) {
        const int last_reader = world.size() - topology.tp_size();
        const std::string mine = world.rank() == last_reader && world.rank() > 0 ? "/nowhere/t.h5" : path;
        const TokenFile file = open_token_file(mine, world);
        const std::string message = test::message_of<AgreedError>([&] { open_for_batches(topology, file); });
        if (last_reader == 0) {
            EXPECT_EQ(message, "");
            return;
        }
        EXPECT_CONTAINS(message, "/nowhere/t.h5` cannot be read on host");
        EXPECT_CONTAINS(message, fmt::format("[on rank {} of {}]", last_reader, world.size()));
    });
}

}  // namespace
}  // namespace switchyard
