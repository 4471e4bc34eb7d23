// Learning-rate factors at the steps where their formulas have known values.
// BACK ENDS: cpu. Numbers of the host alone.
#include <gtest/gtest.h>

#include <cmath>

#include "optim/schedule.hpp"

namespace switchyard {
namespace {

OptimConfig schedule(const char* name, std::int64_t warmup_steps, double min_lr_ratio) {
    OptimConfig optim;
    optim.schedule = name;
    optim.warmup_steps = warmup_steps;
    optim.min_lr_ratio = min_lr_ratio;
    return optim;
}

TEST(LrScheduleTest, WarmUpIsLinearAndEndsAtOne) {
    for (const char* name : {"cosine", "wsd", "constant"}) {
        const OptimConfig optim = schedule(name, 10, 0.1);
        for (int step = 0; step < 10; ++step)
            EXPECT_DOUBLE_EQ(lr_schedule(optim, step, 200), (step + 1) / 10.0);
        EXPECT_DOUBLE_EQ(lr_schedule(optim, 10, 200), 1) << name;
        EXPECT_DOUBLE_EQ(lr_schedule(schedule(name, 0, 0.1), 0, 200), 1) << name << " without warm-up";
    }
}

TEST(LrScheduleTest, CosineFallsToItsMinimumAtTheEnd) {
    const OptimConfig optim = schedule("cosine", 20, 0.1);  // 100 steps of decay
    EXPECT_NEAR(lr_schedule(optim, 70, 120), (1 + 0.1) / 2, 1e-15);
    EXPECT_NEAR(lr_schedule(optim, 45, 120), 0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2, 1e-15);  // a quarter
    EXPECT_NEAR(lr_schedule(optim, 120, 120), 0.1, 1e-15);
    for (int step = 20; step < 120; ++step)
        EXPECT_GT(lr_schedule(optim, step, 120), lr_schedule(optim, step + 1, 120));
    EXPECT_NEAR(lr_schedule(schedule("cosine", 0, 0), 100, 100), 0, 1e-15);
}

TEST(LrScheduleTest, WsdIsStableThenFallsLinearly) {
    OptimConfig optim = schedule("wsd", 20, 0.2);
    optim.decay_ratio = 0.25;  // the last 50 of 200
    for (int step = 20; step <= 150; ++step) EXPECT_DOUBLE_EQ(lr_schedule(optim, step, 200), 1) << step;
    EXPECT_NEAR(lr_schedule(optim, 175, 200), 0.6, 1e-15);
    EXPECT_NEAR(lr_schedule(optim, 199, 200), 1 - 0.8 * 49 / 50, 1e-15);
    EXPECT_NEAR(lr_schedule(optim, 200, 200), 0.2, 1e-15);
}

TEST(LrScheduleTest, ConstantStays) {
    for (int step : {3, 50, 99}) EXPECT_DOUBLE_EQ(lr_schedule(schedule("constant", 3, 0.1), step, 100), 1);
}

TEST(LrScheduleTest, ARunShorterThanItsWarmUpEndsAtItsPeak) {
    EXPECT_DOUBLE_EQ(lr_schedule(schedule("cosine", 100, 0.1), 4, 5), 1);
}

}  // namespace
}  // namespace switchyard
