// Laps of a step: all time is assigned to one phase, and waits to communication.
#include <gtest/gtest.h>

#include "core/timer.hpp"

namespace switchyard {
namespace {

/// Long enough to be measured; the exact time does not matter.
void work() {
    const double end = seconds_now() + 1e-3;
    while (seconds_now() < end) {
    }
}

double sum_of_phases(const PhaseTimer& timer) {
    double sum = 0;
    for (int p = 0; p < num_phases; ++p) sum += timer.seconds(static_cast<Phase>(p));
    return sum;
}

TEST(PhaseTimerTest, WaitsAreTakenFromThePhaseTheyFellInto) {
    PhaseTimer timer;
    timer.reset();
    work();
    timer.lap(Phase::forward);
    timer.waits().begin();
    work();
    timer.waits().end();
    timer.lap(Phase::optimizer);
    work();
    timer.lap(Phase::forward);
    const double waited = timer.waits().seconds(0, 1);
    EXPECT_EQ(timer.waits().count(), 1);
    EXPECT_GE(waited, 1e-3);
    EXPECT_EQ(timer.seconds(Phase::communication), waited);
    EXPECT_GE(timer.seconds(Phase::forward), 2e-3) << "both laps";
    EXPECT_GE(timer.seconds(Phase::optimizer), 0);
    EXPECT_EQ(timer.seconds(Phase::backward), 0);
}

TEST(PhaseTimerTest, ThePhasesAreTheWholeTime) {
    const double before = seconds_now();
    PhaseTimer timer;
    const double begun = seconds_now();
    work();
    timer.lap(Phase::data);
    timer.waits().begin();
    work();
    timer.waits().end();
    const double ending = seconds_now();
    timer.lap(Phase::backward);
    const double after = seconds_now();
    EXPECT_GE(sum_of_phases(timer), (ending - begun) * (1 - 1e-6));
    EXPECT_LE(sum_of_phases(timer), (after - before) * (1 + 1e-6));
}

TEST(PhaseTimerTest, ResetForgetsLapsAndWaits) {
    PhaseTimer timer;
    timer.waits().begin();
    work();
    timer.waits().end();
    timer.lap(Phase::forward);
    timer.reset();
    EXPECT_EQ(sum_of_phases(timer), 0);
    timer.lap(Phase::forward);
    EXPECT_EQ(timer.seconds(Phase::communication), 0);
}

TEST(PhaseTimerTest, EveryLapIsASignOfLife) {
    PhaseTimer timer;
    std::vector<Phase> laps;
    timer.on_lap([&](Phase phase) { laps.push_back(phase); });
    timer.lap(Phase::data);
    timer.lap(Phase::switching);
    EXPECT_EQ(laps, (std::vector<Phase>{Phase::data, Phase::switching}));
}

TEST(StampsTest, PointsMayBeSetAgainAndOutOfOrder) {
    Stamps stamps;
    stamps.stamp(3);
    work();
    stamps.stamp(0);
    EXPECT_GE(stamps.seconds(3, 0), 1e-3);
    EXPECT_EQ(stamps.seconds(3, 0), -stamps.seconds(0, 3));
    stamps.stamp(3);
    EXPECT_LE(stamps.seconds(3, 0), 0);
}

}  // namespace
}  // namespace switchyard
