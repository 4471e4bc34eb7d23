// RANKS: 2 3
// Errors that all ranks meet are thrown as agreed errors, so that rank 0 alone reports them, however long the
// others take to end: arguments of commands, configurations, ranks that do not fit, files, a loss that is not
// finite.
#include <gtest/gtest.h>

#include <limits>

#include "comm/collectives.hpp"
#include "commands/commands.hpp"
#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "support/tiny_run.hpp"
#include "support/token_files.hpp"

namespace switchyard {
namespace {

using test::TemporaryDirectory;

class Refusals : public ::testing::Test {
  protected:
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    TemporaryDirectory own;  // rank 0's is used
    const std::string folder = broadcast(world, own.path());

    void SetUp() override {
        agree_on(world, [&] {
            if (world.rank() == 0)
                tokenize(test::quiet_options(own.write("a.txt", test::sample_text(300, 1)), tokens));
        });
    }
    void TearDown() override { barrier(world); }

    const std::string tokens = folder + "/a.h5";
    const std::vector<Command> commands{
        {"train", "", "", run_train, train_options(), Ranks::together, true},
        {"eval", "", "", run_eval, eval_options(), Ranks::together, true},
        {"generate", "", "", run_generate, generate_options(), Ranks::together, true},
        {"plan", "", "", run_plan, plan_options(), Ranks::first, true},
        {"export", "", "", run_export, export_options(), Ranks::together, true},
    };

    int command(std::vector<std::string> words) {
        words.insert(words.begin(), "switchyard");
        std::vector<char*> pointers;
        for (std::string& word : words) pointers.push_back(word.data());
        return run_command_line(commands, world, static_cast<int>(words.size()), pointers.data(), 0.0);
    }
    std::vector<std::string> train(std::vector<std::string> changes) {
        std::vector<std::string> words{"train",
                                       "--model.preset=nano",
                                       "--data.tokens=" + tokens,
                                       "--data.seq_len=8",
                                       "--data.micro_batch=1",
                                       "--data.global_batch=" + std::to_string(world.size()),
                                       "--run.steps=4",
                                       "--optim.warmup_steps=1",
                                       "--run.dir=" + folder + "/run"};
        words.insert(words.end(), changes.begin(), changes.end());
        return words;
    }
    /// All ranks throw the same AgreedError, which names no rank because all failed.
    template <class Work>
    void expect_agreed(Work&& work, const std::string& part) {
        const std::string message = test::message_of<AgreedError>(work);
        EXPECT_CONTAINS(message, part);
        EXPECT_EQ(message, broadcast(world, message));
        EXPECT_EQ(message.find("[on rank"), std::string::npos) << message;
    }
    void refused(const std::vector<std::string>& words, const std::string& part) {
        SCOPED_TRACE(words.back());
        expect_agreed([&] { command(words); }, part);
    }
};

TEST_F(Refusals, OfWordsAndSettings) {
    refused({"trian"}, "did you mean 'train'?");
    refused({"train", "--dump-confi"}, "did you mean");
    refused({"train", "a", "b"}, "2 configuration files");
    refused(train({"--optim.warmup_step=3"}), "unknown key optim.warmup_step");
    refused(train({"--optim.beta1=1.5"}), "optim.beta1 = 1.5");
    refused(train({"--parallel.tp=7"}), "parallel.tp = 7");
    refused(train({"--data.micro_batch=5"}), "data.global_batch");
    refused(train({"--data.seq_len=9999999"}), "data.seq_len + 1 = 10000000");
    refused(train({"--data.tokens=" + folder + "/none.h5"}), "none.h5` does not exist");
    refused(train({"--model.vocab_size=200"}), "model.vocab_size = 200");
    refused(train({"--method.name=lora", "--method.rank=9999"}), "method.rank = 9999");
    refused({"plan", "--ranks=0"}, "--ranks=0");
    refused({"plan", "--ranks=6", "--parallel.tp=4"}, "6 ranks");
    refused({"eval"}, "0 files");
    refused({"generate", "x", "--temperature=-1"}, "--temperature=-1");
    refused({"export", "x"}, "1 files given");
    refused({"export", "x", "y", "--dtype=f16"}, "--dtype=f16");
}

TEST_F(Refusals, OfWhatDoesNotFitACheckpoint) {
    ASSERT_EQ(command(train({})), 0);
    const std::string run = folder + "/run";
    const auto other = test::quiet_options(folder + "/b.txt", folder + "/b.h5");
    agree_on(world, [&] {
        if (world.rank() != 0) return;
        own.write("b.txt", test::sample_text(300, 2));
        tokenize(other);
    });
    refused({"eval", run, "--data.tokens=" + other.output}, "a different tokenizer");
    refused({"eval", run, "--data.seq_len=30000"}, "data.seq_len + 1");
    refused({"eval", run, "--parallel.tp=7"}, "parallel.tp = 7");
    refused({"generate", run, "--data.tokens=" + other.output}, "a different tokenizer");
}

TEST_F(Refusals, OfALossThatIsNotFinite) {
    const Topology topology = Topology::create(world, 1);
    const Config config = testing::tiny_config({"--run.dtype=f32"});
    testing::TinyRun run(config, topology);
    Tensor norm = run.state().model.parameters().back()->value;
    kernels::fill(norm, std::numeric_limits<double>::quiet_NaN());
    expect_agreed([&] { run.step(); }, "step 1: loss nan");
}

}  // namespace
}  // namespace switchyard
