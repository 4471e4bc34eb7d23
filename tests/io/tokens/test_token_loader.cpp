// The loader: permutations are bijections, and batches hold the file's tokens for every division among ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "core/error.hpp"
#include "io/tokens/token_loader.hpp"
#include "support/token_files.hpp"

namespace switchyard {
namespace {

using test::all_ids;
using test::quiet_options;
using test::sample_text;
using test::TemporaryDirectory;

TEST(PermuteTest, IsABijectionForEverySizeAndKey) {
    std::vector<std::int64_t> sizes(70);
    std::iota(sizes.begin(), sizes.end(), 1);
    for (std::int64_t size : {127, 128, 129, 255, 256, 257, 1000, 4095, 4096, 4097, 65537, 100003})
        sizes.push_back(size);
    for (const std::int64_t size : sizes) {
        for (const std::uint64_t key : {0ull, 1ull, 0x9E3779B97F4A7C15ull, ~0ull}) {
            std::vector<bool> seen(static_cast<std::size_t>(size), false);
            for (std::int64_t i = 0; i < size; ++i) {
                const std::int64_t j = permute(i, size, key);
                ASSERT_GE(j, 0);
                ASSERT_LT(j, size);
                ASSERT_FALSE(seen[static_cast<std::size_t>(j)])
                    << "size " << size << " key " << key << " index " << i;
                seen[static_cast<std::size_t>(j)] = true;
            }
        }
    }
}

TEST(PermuteTest, WorksForSizesBeyond32Bits) {
    const std::int64_t size = (std::int64_t{1} << 40) + 12345;
    std::set<std::int64_t> seen;
    for (std::int64_t i = 0; i < 1000; ++i) {
        const std::int64_t j = permute(size - 1 - i, size, 7);
        ASSERT_TRUE(j >= 0 && j < size);
        seen.insert(j);
    }
    EXPECT_EQ(seen.size(), 1000u);
    EXPECT_GT(*seen.rbegin(), size / 2);
    EXPECT_LT(*seen.begin(), size / 2);
}

TEST(PermuteTest, KeysGiveUnrelatedOrders) {
    const std::int64_t size = 5000;
    for (std::uint64_t key = 0; key < 10; ++key) {
        int same = 0, fixed = 0;
        for (std::int64_t i = 0; i < size; ++i) {
            same += permute(i, size, key) == permute(i, size, key + 1);
            fixed += permute(i, size, key) == i;
        }
        // Matches of unrelated permutations are Poisson with mean 1: more than 12 has probability 6e-11.
        EXPECT_LE(same, 12) << key;
        EXPECT_LE(fixed, 12) << key;
    }
}

TEST(PermuteTest, LooksRandom) {
    // The images of an index under a thousand keys, in 16 cells: chi-squared with 15 degrees of freedom; 58
    // has probability 5e-7.
    for (const std::int64_t size : {16, 100, 1000, 40000}) {
        for (const std::int64_t index : {std::int64_t{0}, size / 3, size - 1}) {
            std::vector<double> cells(16, 0.0), expected(16, 0.0);
            const int keys = 4000;
            for (std::int64_t j = 0; j < size; ++j) {
                expected[static_cast<std::size_t>(j * 16 / size)] +=
                    static_cast<double>(keys) / static_cast<double>(size);
            }
            for (int key = 0; key < keys; ++key) {
                const std::int64_t j = permute(index, size, mix64(static_cast<std::uint64_t>(key)));
                cells[static_cast<std::size_t>(j * 16 / size)] += 1;
            }
            double chi_squared = 0;
            for (int c = 0; c < 16; ++c)
                chi_squared += (cells[c] - expected[c]) * (cells[c] - expected[c]) / expected[c];
            EXPECT_LT(chi_squared, 58) << "size " << size << " index " << index;
        }
    }
    // The correlation of index and image has standard deviation 1/sqrt(n); five deviations.
    const std::int64_t size = 10000;
    double sum = 0;
    const double mean = (static_cast<double>(size) - 1) / 2;
    for (std::int64_t i = 0; i < size; ++i) {
        sum += (static_cast<double>(i) - mean) * (static_cast<double>(permute(i, size, 3)) - mean);
    }
    const double variance = (static_cast<double>(size) * static_cast<double>(size) - 1) / 12;
    EXPECT_LT(std::abs(sum / (static_cast<double>(size) * variance)), 0.05);
    EXPECT_THROW(permute(10, 10, 1), InternalError);
}

class TokenLoaderTest : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        folder_ = new TemporaryDirectory;
        tokenize(quiet_options(folder_->write("a.txt", sample_text(300, 21)), folder_->file("t.h5")));
    }
    static void TearDownTestSuite() {
        delete folder_;
        folder_ = nullptr;
    }
    static TemporaryDirectory* folder_;
    TokenFile file_{folder_->file("t.h5")};
    std::vector<std::int32_t> training_ = all_ids(file_, TokenSplit::training);
    std::vector<std::int32_t> validation_ = all_ids(file_, TokenSplit::validation);
};
TemporaryDirectory* TokenLoaderTest::folder_ = nullptr;

/// The position in the file of a sequence and its targets; -1 if it is not one of the samples.
std::int64_t find_sample(const std::vector<std::int32_t>& ids, const Batch& batch, std::int64_t b,
                         std::int64_t seq_len) {
    const auto* tokens = batch.tokens.data() + b * seq_len;
    const auto* targets = batch.targets.data() + b * seq_len;
    for (std::int64_t begin = 0; begin + seq_len < static_cast<std::int64_t>(ids.size()); begin += seq_len) {
        if (std::equal(tokens, tokens + seq_len, ids.begin() + begin) &&
            std::equal(targets, targets + seq_len, ids.begin() + begin + 1)) {
            return begin / seq_len;
        }
    }
    return -1;
}

TEST_F(TokenLoaderTest, AnEpochHoldsEverySampleOnceAndEpochsDiffer) {
    const std::int64_t seq_len = 24;
    const TokenLoader loader(file_, seq_len, 5, false);
    const std::int64_t size = loader.samples_per_epoch();
    ASSERT_EQ(size, (static_cast<std::int64_t>(training_.size()) - 1) / seq_len);
    std::vector<std::vector<std::int64_t>> orders;
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
        Batch batch;
        loader.training_batch(epoch * size, size, batch);
        EXPECT_EQ(batch.num_sequences, size);
        EXPECT_EQ(batch.seq_len, seq_len);
        EXPECT_TRUE(batch.first_key.empty());
        std::vector<std::int64_t> order;
        for (std::int64_t b = 0; b < size; ++b) order.push_back(find_sample(training_, batch, b, seq_len));
        orders.push_back(order);
        std::sort(order.begin(), order.end());
        for (std::int64_t i = 0; i < size; ++i) ASSERT_EQ(order[static_cast<std::size_t>(i)], i);
    }
    EXPECT_NE(orders[0], orders[1]);
    EXPECT_NE(orders[1], orders[2]);
    EXPECT_FALSE(std::is_sorted(orders[0].begin(), orders[0].end()));
    Batch other;
    TokenLoader(file_, seq_len, 6, false).training_batch(0, size, other);
    std::vector<std::int64_t> order;
    for (std::int64_t b = 0; b < size; ++b) order.push_back(find_sample(training_, other, b, seq_len));
    EXPECT_NE(order, orders[0]);
}

TEST_F(TokenLoaderTest, RanksTogetherReadTheSameGlobalBatch) {
    const TokenLoader loader(file_, 16, 9, true);
    const std::int64_t global_batch = 12,
                       steps = loader.samples_per_epoch() / 12 + 2;  // into the second epoch
    for (std::int64_t step = 0; step < steps; ++step) {
        Batch whole, part;
        loader.training_batch(step * global_batch, global_batch, whole);
        for (const std::int64_t dp : {2, 3, 4, 12}) {
            const std::int64_t local = global_batch / dp;
            std::vector<std::int32_t> tokens, targets, starts;
            for (std::int64_t rank = 0; rank < dp; ++rank) {
                const TokenFile own(file_.path());
                const TokenLoader mine(own, 16, 9, true);
                mine.training_batch(step * global_batch + rank * local, local, part);
                tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
                targets.insert(targets.end(), part.targets.begin(), part.targets.end());
                starts.insert(starts.end(), part.first_key.begin(), part.first_key.end());
            }
            ASSERT_EQ(tokens, whole.tokens);
            ASSERT_EQ(targets, whole.targets);
            ASSERT_EQ(starts, whole.first_key);
        }
    }
}

TEST_F(TokenLoaderTest, ValidationTargetsCountOnceWhateverTheSplit) {
    const auto size = static_cast<std::int64_t>(validation_.size());
    for (const std::int64_t seq_len : {1l, 7l, 32l, size - 2, size - 1, size, size + 5}) {
        const TokenLoader loader(file_, std::min(seq_len, static_cast<std::int64_t>(training_.size()) - 1), 1,
                                 false);
        const std::int64_t sequences = loader.num_validation_sequences();
        EXPECT_EQ(loader.num_validation_targets(), size - 1);
        EXPECT_EQ(sequences, (size - 2 + seq_len) / seq_len);
        Batch batch;
        std::vector<std::int32_t> targets, inputs;
        for (std::int64_t first = 0; first < sequences + 4; first += 3) {  // beyond the end
            loader.validation_batch(first, 3, batch);
            for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
                const std::int64_t sequence = first + static_cast<std::int64_t>(i) / seq_len;
                if (batch.targets[i] < 0) {
                    EXPECT_EQ(batch.targets[i], -1);
                    EXPECT_GE(sequence, sequences - 1);
                    continue;
                }
                targets.push_back(batch.targets[i]);
                inputs.push_back(batch.tokens[i]);
            }
        }
        EXPECT_EQ(targets, std::vector<std::int32_t>(validation_.begin() + 1, validation_.end())) << seq_len;
        EXPECT_EQ(inputs, std::vector<std::int32_t>(validation_.begin(), validation_.end() - 1)) << seq_len;
    }
}

TEST_F(TokenLoaderTest, PastTheEndIsAllPadding) {
    const TokenLoader loader(file_, 8, 1, true);
    Batch batch;
    loader.validation_batch(loader.num_validation_sequences() + 1000000, 2, batch);
    EXPECT_EQ(batch.targets, std::vector<std::int32_t>(16, -1));
    EXPECT_EQ(batch.tokens, std::vector<std::int32_t>(16, file_.info().end_token));
}

TEST_F(TokenLoaderTest, DocumentStartsAgreeWithTheFile) {
    const std::int64_t seq_len = 40;
    const TokenLoader loader(file_, seq_len, 2, true);
    Batch batch;
    loader.training_batch(0, loader.samples_per_epoch(), batch);
    std::int64_t inner = 0;
    for (std::int64_t b = 0; b < batch.num_sequences; ++b) {
        const std::int64_t begin = find_sample(training_, batch, b, seq_len) * seq_len;
        for (std::int64_t t = 0; t < seq_len; ++t) {
            const std::int64_t in_file = file_.document_start(TokenSplit::training, begin + t) - begin;
            ASSERT_EQ(batch.first_key[static_cast<std::size_t>(b * seq_len + t)],
                      std::max<std::int64_t>(in_file, 0));
            inner += in_file > 0;
        }
    }
    EXPECT_GT(inner, 0);
}

TEST_F(TokenLoaderTest, TooFewTokensAreExplained) {
    const auto size = static_cast<std::int64_t>(training_.size());
    EXPECT_EQ(TokenLoader(file_, size - 1, 0, false).samples_per_epoch(), 1);
    const std::string message = test::message_of<UserError>([&] { TokenLoader(file_, size, 0, false); });
    EXPECT_CONTAINS(message, std::to_string(size) + " training tokens");
    EXPECT_CONTAINS(message, std::to_string(size + 1));
    EXPECT_CONTAINS(test::message_of<UserError>([&] { TokenLoader(file_, 0, 0, false); }), "seq_len = 0");
}

TEST_F(TokenLoaderTest, NoValidationSplitGivesNoSequences) {
    TokenizeOptions options = quiet_options(folder_->file("a.txt"), folder_->file("none.h5"));
    options.validation = 0;
    tokenize(options);
    const TokenFile file(options.output);
    const TokenLoader loader(file, 8, 0, false);
    EXPECT_EQ(loader.num_validation_targets(), 0);
    EXPECT_EQ(loader.num_validation_sequences(), 0);
}

}  // namespace
}  // namespace switchyard
