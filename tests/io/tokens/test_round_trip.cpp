// What a tokenizer loses is counted: models that fold spaces, normalise or lack characters, and one that
// loses nothing.
#include <gtest/gtest.h>

#include "io/tokens/round_trip.hpp"
#include "io/tokens/tokenizer_training.hpp"
#include "support/sentencepiece_models.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

constexpr const char* awkward = "ka  lo\n\tmi   ten \uFB01\n\nsur";

RoundTrip measured(const std::string& model, const std::string& text, int times = 1) {
    const Tokenizer tokenizer(model);
    RoundTrip result;
    const std::vector<std::int32_t> ids = tokenizer.encode(text);
    for (int i = 0; i < times; ++i) result.add(tokenizer, text, ids);
    return result;
}

TEST(RoundTripTest, ATokenizerTrainedHereKeepsEverything) {
    const RoundTrip result = measured(train_tokenizer({"ka lo mi ten sur ran vel do"}, 275), awkward);
    EXPECT_TRUE(result.exact());
    EXPECT_EQ(result.sentence(), "the first 0.00 MB come back from their tokens as they were");
}

TEST(RoundTripTest, test_friction_line_ends_and_runs_of_spaces_that_are_dropped_are_counted) {
    const RoundTrip result = measured(test::folding_model(), awkward);
    EXPECT_FALSE(result.exact());
    EXPECT_CONTAINS(result.sentence(), "1 of 1 texts");
    // "ka lo mi ten fi sur": five spaces replace six spaces, a tab and three line ends, and two letters
    // replace the ligature.
    EXPECT_CONTAINS(result.sentence(),
                    "3 of 3 line ends, 1 of 1 tabs, 1 of 6 spaces, 1 of 13 other characters (\"\uFB01\")");
}

TEST(RoundTripTest, OnlyTheFirstMegabyteIsMeasured) {
    std::string text;
    while (text.size() < 300000) text += "ka lo mi ";
    const std::string sentence =
        measured(train_tokenizer({"ka lo mi ten sur ran vel do"}, 275), text, 20).sentence();
    EXPECT_CONTAINS(sentence, "the first 1.20 MB");
}

}  // namespace
}  // namespace switchyard
