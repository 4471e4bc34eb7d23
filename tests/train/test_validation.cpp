// RANKS: 1 2 3 4
// The validation loss is one mean over every token of the set but the first, whatever the layout. The
// reference is log-sum-exp of the logits, token by token, and no size divides another.
#include <gtest/gtest.h>

#include <cmath>

#include "io/tokens/token_file_writer.hpp"
#include "kernels/transfer.hpp"
#include "support/layouts.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"
#include "support/token_files.hpp"

namespace switchyard {
namespace validation_test {

using testing::for_each_layout;
using testing::TinyRun;

constexpr std::int64_t seq_len = 8, vocab_size = 53;
constexpr std::int64_t num_sequences = 13, remainder = 3;  // targets in the last
constexpr std::int64_t num_tokens = (num_sequences - 1) * seq_len + remainder + 1;

/// Skewed tokens in documents of 1 to 12, the last one cut so that the sets have the given lengths.
void fill(TokenFileWriter& writer, TokenSplit split, std::int64_t length) {
    const std::uint64_t key = stream_key(3, split == TokenSplit::training ? "training" : "validation");
    for (std::int64_t done = 0, next = 0; done < length; ++next) {
        const std::int64_t drawn = 1 + static_cast<std::int64_t>(uniform_below(key, 1000 + next, 12));
        const std::int64_t count = std::min(drawn, length - done - 1);
        std::vector<std::int32_t> ids;
        for (std::int64_t i = 0; i < count; ++i) {
            const double u = uniform(key, 2000 + done + i);
            ids.push_back(1 + static_cast<std::int32_t>(u * u * (vocab_size - 1)));
        }
        writer.start_document(split);
        writer.append(split, ids, 0);
        writer.end_document(split);
        done += count + 1;
    }
}

class ValidationTest : public ::testing::Test {
  protected:
    /// One file, written by rank 0.
    static void SetUpTestSuite() {
        const Comm world = Comm::duplicate(MPI_COMM_WORLD);
        if (world.rank() == 0) {
            folder_ = std::make_unique<test::TemporaryDirectory>();
            TokenFileWriter writer(
                folder_->file("t.h5"),
                {.vocab_size = vocab_size, .end_token = 0, .tokenizer_kind = TokenizerKind::none});
            fill(writer, TokenSplit::training, 200);
            fill(writer, TokenSplit::validation, num_tokens);
            writer.commit(0.1, 0);
        }
        path_ = broadcast(world, folder_ ? folder_->file("t.h5") : "");
    }
    static void TearDownTestSuite() { folder_.reset(); }

    static std::unique_ptr<test::TemporaryDirectory> folder_;
    static std::string path_;
    TokenFile file_{path_};
};
std::unique_ptr<test::TemporaryDirectory> ValidationTest::folder_;
std::string ValidationTest::path_;

/// Weights large enough that tokens differ in loss by factors.
Config config_of(const std::string& method, bool masked, int micro_batch) {
    return testing::tiny_config({"--method.name=" + method, "--model.init_std=0.3",
                                 std::string("--data.mask_documents=") + (masked ? "true" : "false"),
                                 "--data.micro_batch=" + std::to_string(micro_batch)});
}

/// -log softmax(logits)[target].
double cross_entropy(const test::Values& logits, std::int32_t target) {
    double largest = logits[0], sum = 0;
    for (double x : logits) largest = std::max(largest, x);
    for (double x : logits) sum += std::exp(x - largest);
    return largest + std::log(sum) - logits[target];
}

/// Mean over the tokens 1, 2, ... of the set, each after those before it in its sequence (and document).
double direct_loss(const TokenFile& file, const Config& config) {
    const std::vector<std::int32_t> ids = test::all_ids(file, TokenSplit::validation);
    const Topology one = testing::serial();
    TinyRun run(config, one);
    Transformer& model = run.state().model;
    double sum = 0;
    for (std::int64_t begin = 0; begin + 1 < num_tokens; begin += seq_len) {
        const std::int64_t count = std::min(seq_len, num_tokens - 1 - begin);
        std::vector<std::int32_t> tokens(seq_len, 0), starts(seq_len, 0);
        for (std::int64_t t = 0; t < count; ++t) {
            tokens[t] = ids[begin + t];
            if (t > 0) starts[t] = tokens[t - 1] == 0 ? static_cast<std::int32_t>(t) : starts[t - 1];
        }
        kernels::upload(tokens.data(), model.batch().tokens);
        if (config.data.mask_documents) kernels::upload(starts.data(), model.batch().first_key);
        model.read();
        for (std::int64_t t = 0; t < count; ++t) {
            const test::HostTensor logits(DType::f64, {1, model.vocabulary().padded});
            model.next_token_logits(t, logits);
            test::Values values = logits.values();
            values.resize(vocab_size);
            sum += cross_entropy(values, ids[begin + t + 1]);
        }
    }
    return sum / static_cast<double>(num_tokens - 1);
}

TEST_F(ValidationTest, EveryLayoutGivesTheMeanOverAllTokens) {
    for (const char* method : {"full", "switchlora"})
        for (const bool masked : {false, true}) {
            const double expected = direct_loss(file_, config_of(method, masked, 1));
            for (const int micro_batch : {1, 2, 3}) {
                const Config config = config_of(method, masked, micro_batch);
                for_each_layout(config, [&](const Config& here, const Topology& topology) {
                    const std::int64_t at_once = topology.dp_size() * micro_batch;
                    if (here.data.global_batch % at_once != 0) return;
                    if (at_once > 1) {
                        EXPECT_NE(num_sequences % at_once, 0) << "no remainder to test";
                    }
                    TinyRun run(here, topology);
                    const TokenLoader loader(file_, seq_len, 0, masked);
                    EXPECT_EQ(loader.num_validation_sequences(), num_sequences);
                    // 1e-13: sums of 100 terms of one sign in other orders, through two layers.
                    EXPECT_NEAR(validation_loss(run.state(), loader), expected, 1e-13 * expected)
                        << method << ", masked " << masked << ", micro-batch " << micro_batch;
                });
            }
        }
}

TEST_F(ValidationTest, TheSetStaysWhileTheModelTrains) {
    const Config config = config_of("switchlora", false, 1);
    for_each_layout(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology), undisturbed(here, topology);
        const TokenLoader loader(file_, seq_len, 0, false), other_seed(file_, seq_len, 5, false);
        int calls = 0;
        const double first = validation_loss(run.state(), loader, [&] { ++calls; });
        EXPECT_EQ(validation_loss(run.state(), other_seed), first) << "not a matter of the seed";
        EXPECT_EQ(calls, (num_sequences + topology.dp_size() - 1) / topology.dp_size())
            << "a sign of life for each micro-batch";
        for (int step = 0; step < 3; ++step) {
            EXPECT_EQ(run.step().loss, undisturbed.step().loss) << "evaluation leaves training alone";
            EXPECT_NE(validation_loss(run.state(), loader), first);
        }
    });
}

}  // namespace validation_test
}  // namespace switchyard
