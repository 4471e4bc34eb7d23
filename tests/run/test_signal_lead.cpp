// Whether the signal before the time limit leaves enough time for a step and a save.
#include <gtest/gtest.h>

#include "run/signal_lead.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

TEST(SignalLeadTest, TimesAreTheLongestInTheLog) {
    LongestTimes times;
    for (const char* line :
         {R"({"event": "start", "step": 0})", R"({"step": 1, "step_s": 2.5})",
          R"({"step": 2, "step_s": 0.5})", R"({"event": "save", "step": 2, "seconds": 3.25})",
          R"({"event": "other", "step": 2, "seconds": 99})", R"({"event": 7, "step_s": null})",
          R"({"event": "save", "step": 4, "seconds": 1.0})"})
        times.add(nlohmann::ordered_json::parse(line));
    EXPECT_EQ(times.step_s, 2.5);
    EXPECT_EQ(times.save_s, 3.25);
}

TEST(SignalLeadTest, StepAndSaveMustFit) {
    const SignalLead enough = judge_signal_lead(15, {.step_s = 5, .save_s = 10}, 1000);
    EXPECT_TRUE(enough.enough);
    EXPECT_CONTAINS(enough.text,
                    "15 s before the job ends, a step took up to 5.00 s, a save took up to 10.00 s: enough");
    const SignalLead missing = judge_signal_lead(14, {.step_s = 5, .save_s = 10}, 0);
    EXPECT_FALSE(missing.enough);
    EXPECT_CONTAINS(missing.text, "14 s before the job ends");
    EXPECT_CONTAINS(missing.text, "--signal=USR1@40");
}

TEST(SignalLeadTest, AnEstimateStandsInForASaveThatWasNotMeasured) {
    const SignalLead enough = judge_signal_lead(120, {}, 119);
    EXPECT_TRUE(enough.enough);
    EXPECT_CONTAINS(enough.text, "a save was not measured yet and is expected to take 119.00 s");
    EXPECT_FALSE(judge_signal_lead(120, {}, 121).enough);
}

}  // namespace
}  // namespace switchyard
