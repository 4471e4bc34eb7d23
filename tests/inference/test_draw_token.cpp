// Which token `generate` draws from given logits, and how text is printed while its tokens arrive.
// BACK ENDS: cpu. The host draws.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "inference/generation.hpp"
#include "support/token_files.hpp"

namespace switchyard {
namespace {

const std::vector<double> logits{-1, 2, 0.5, 2, -3, 1};  // ids 1 and 3 tie
const std::vector<std::int32_t> by_likelihood{1, 3, 5, 2, 0, 4};

GenerationSettings settings(double temperature, std::int64_t top_k) {
    GenerationSettings s;
    s.temperature = temperature;
    s.top_k = top_k;
    return s;
}

TEST(DrawTokenTest, GreedyIsTheMostLikelyAndTheLowestOfEquals) {
    for (const double u : {1e-9, 0.5, 1 - 1e-9}) {
        for (const std::int64_t top_k : {0, 1, 3}) EXPECT_EQ(draw_token(logits, settings(0, top_k), u), 1);
        EXPECT_EQ(draw_token(logits, settings(5, 1), u), 1) << "top_k = 1";
    }
}

/// Of n equally spaced u each token gets its softmax share, up to the two ends of its interval.
void expect_shares(double temperature, std::int64_t top_k) {
    constexpr int n = 20000;
    const std::size_t k = top_k == 0 ? logits.size() : std::min(logits.size(), std::size_t(top_k));
    std::vector<int> counts(logits.size(), 0);
    for (int i = 0; i < n; ++i) ++counts[draw_token(logits, settings(temperature, top_k), (i + 0.5) / n)];
    double sum = 0;
    for (std::size_t i = 0; i < k; ++i) sum += std::exp(logits[by_likelihood[i]] / temperature);
    for (std::size_t i = 0; i < logits.size(); ++i) {
        const double share = i < k ? std::exp(logits[by_likelihood[i]] / temperature) / sum : 0;
        EXPECT_NEAR(counts[by_likelihood[i]], n * share, i < k ? 1 : 0)
            << "id " << by_likelihood[i] << ", temperature " << temperature << ", top_k " << top_k;
    }
}

TEST(DrawTokenTest, SharesAreTheSoftmaxOfTheMostLikely) {
    for (const double temperature : {0.3, 1.0, 4.0})
        for (const std::int64_t top_k : {0, 2, 3, 6, 100}) expect_shares(temperature, top_k);
}

TEST(DrawTokenTest, LargeLogitsDoNotOverflow) {
    EXPECT_EQ(draw_token({1000, 999, -1000}, settings(0.01, 0), 0.999), 0);
    EXPECT_EQ(draw_token({1000, 1000}, settings(1, 0), 0.75), 1);
}

class TextStreamTest : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        const test::TemporaryDirectory folder;
        const std::string path = folder.file("t.h5");
        tokenize(test::quiet_options(folder.write("a.txt", test::sample_text(300, 21)), path));
        model_ = TokenFile(path).info().tokenizer_model;
    }
    /// The text printed at the start, after each token and at the end.
    std::vector<std::string> printed(const std::string& prompt, const std::vector<std::int32_t>& ids) const {
        std::vector<std::string> parts;
        TextStream stream(tokenizer_, tokenizer_.encode(prompt));
        const auto part = [&](const auto& print) {
            ::testing::internal::CaptureStdout();
            print();
            parts.push_back(::testing::internal::GetCapturedStdout());
        };
        part([&] { stream.print(); });
        for (const std::int32_t id : ids) {
            stream.add(id);
            part([&] { stream.print(); });
        }
        part([&] { stream.finish(); });
        return parts;
    }
    static std::string joined(const std::vector<std::string>& parts) {
        return std::accumulate(parts.begin(), parts.end(), std::string());
    }

    static std::string model_;
    Tokenizer tokenizer_{model_};
};
std::string TextStreamTest::model_;

TEST_F(TextStreamTest, PromptThenEachTokenAtOnce) {
    const std::string all = "kalo miten surran.";
    const std::vector<std::int32_t> ids = tokenizer_.encode(all);
    ASSERT_GT(ids.size(), 3u);
    const std::vector<std::string> parts = printed("", ids);
    std::string text;
    for (std::size_t i = 0; i <= ids.size(); ++i) {
        text += parts[i];
        EXPECT_EQ(text, tokenizer_.decode({ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(i)}));
    }
    EXPECT_EQ(text + parts.back(), all + "\n");
    EXPECT_EQ(printed("kalo mi", {}), (std::vector<std::string>{"kalo mi", "\n"}));
}

TEST_F(TextStreamTest, ACharacterWaitsForItsLastByte) {
    const std::string character = "\xE6\x97\xA5";  // not in the training text: a token for each byte
    const std::vector<std::int32_t> ids = tokenizer_.encode("ka" + character);
    ASSERT_GE(ids.size(), 4u);
    const std::vector<std::string> parts = printed("", ids);
    EXPECT_EQ(joined(parts), "ka" + character + "\n");
    EXPECT_EQ(parts[ids.size() - 1] + parts[ids.size() - 2], "") << "bytes of an unfinished character";
    EXPECT_EQ(parts[ids.size()], character);
    const std::vector<std::int32_t> cut(ids.begin(), ids.end() - 1);
    EXPECT_EQ(joined(printed("", cut)), tokenizer_.decode(cut) + "\n") << "what never ends is shown at last";
}

}  // namespace
}  // namespace switchyard
