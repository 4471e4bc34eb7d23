// Which slots take which candidates when: windows of the ring, freeze counters, frequency and coverage of the
// SwitchLoRA schedule (arXiv 2406.06564, algorithm 2), random order, and the tables that a checkpoint holds.
// BACK ENDS: cpu. Decisions of the host alone.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "methods/switchlora/switch_schedule.hpp"
#include "reference/switch_ring.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard::test {
namespace {

SwitchSettings settings(std::int64_t low_rank, std::int64_t num_candidates, double interval,
                        std::int64_t freeze_steps, bool random_order = false) {
    SwitchSettings s;
    s.low_rank = low_rank;
    s.num_candidates = num_candidates;
    s.interval = interval;
    s.freeze_steps = freeze_steps;
    s.ratio = 1;
    s.steps = 2000;
    s.random_order = random_order;
    return s;
}

/// Low ranks that are odd, even, divisors of the number of candidates or not, more than half of it, and one
/// less than it.
const std::vector<SwitchSettings> ring_cases{
    settings(8, 32, 12, 5),  settings(5, 24, 10, 5), settings(7, 23, 6, 3), settings(12, 20, 4, 2),
    settings(23, 24, 10, 4), settings(2, 9, 6, 1),   settings(3, 8, 4, 0),  settings(64, 256, 10, 5),
};

/// After update number t: counters are decreased, then comes the switch, as in a step.
Switch after_update(SwitchSchedule& schedule, std::int64_t t) {
    schedule.count_down();
    return schedule.advance(t);
}

std::string text(const SwitchSettings& s) {
    return fmt::format("r {} C {} interval {} N {}{}", s.low_rank, s.num_candidates, s.interval,
                       s.freeze_steps, s.random_order ? " random" : "");
}

std::vector<reference::SlotChange> changes(const SideSwitch& s) {
    std::vector<reference::SlotChange> all;
    for (std::size_t i = 0; i < s.slots.size(); ++i)
        all.push_back({s.slots[i], s.outgoing[i], s.incoming[i]});
    return all;
}

int drawn_count(const SwitchSettings& s, const std::string& matrix, std::int64_t step) {
    const double u = uniform(stream_key(s.seed, "switch count " + matrix), step),
                 whole = std::floor(s.rate(step));
    return static_cast<int>(whole) + (u < s.rate(step) - whole ? 1 : 0);
}

TEST(SwitchScheduleTest, RingEqualsThePublishedBookkeeping) {
    for (const SwitchSettings& s : ring_cases) {
        SCOPED_TRACE(text(s));
        SwitchSchedule schedule(s, "m");
        reference::SwitchRing ring(s.low_rank, s.num_candidates, s.freeze_steps);
        std::int64_t switched = 0;
        for (std::int64_t t = 0; t < s.steps; ++t) {
            const Switch now = after_update(schedule, t);
            ring.count_down();
            reference::SwitchRing::Changes expected;
            ring.advance(drawn_count(s, "m", t), expected);
            switched += now.count();
            ASSERT_LE(now.count(), s.most_at_once());
            ASSERT_EQ(changes(now.a), expected[0]) << "step " << t;
            ASSERT_EQ(changes(now.b), expected[1]) << "step " << t;
            for (int side : {0, 1}) {
                ASSERT_EQ(schedule.candidates(side), ring.selected[side]) << "step " << t;
                ASSERT_EQ(schedule.frozen(side), ring.frozen[side]) << "step " << t;
            }
        }
        EXPECT_GT(switched, s.num_candidates);
    }
}

TEST(SwitchScheduleTest, FreezeCountersLimitTheCountNearTwoNOnly) {
    for (const auto& [interval, expected] : {std::pair{10.0, true}, {40.0, false}}) {
        SwitchSettings s = settings(64, 256, interval, 5);
        s.ratio = 1e6;
        SwitchSchedule schedule(s, "m");
        std::int64_t limited = 0;
        for (std::int64_t t = 0; t < s.steps; ++t)
            limited += after_update(schedule, t).count() < drawn_count(s, "m", t);
        EXPECT_EQ(limited > s.steps / 10, expected) << limited << " of " << s.steps;
        EXPECT_EQ(limited > 0, expected) << limited << " of " << s.steps;
    }
}

TEST(SwitchScheduleTest, ActiveCandidatesAreAWindowOfTheRing) {
    for (const SwitchSettings& s : ring_cases) {
        SCOPED_TRACE(text(s));
        SwitchSchedule schedule(s, "m");
        std::set<int> seen[2];
        for (std::int64_t t = 0; t < s.steps; ++t) {
            const Switch now = after_update(schedule, t);
            for (int side : {0, 1}) {
                for (const auto& [slot, outgoing, incoming] : changes(side == 0 ? now.a : now.b))
                    EXPECT_EQ(incoming, (outgoing + s.low_rank) % s.num_candidates);
                const std::vector<int>& active = schedule.candidates(side);
                const std::set<int> window(active.begin(), active.end());
                ASSERT_EQ(window.size(), active.size()) << "a candidate in two slots";
                int starts = 0;  // one run of consecutive candidates has one start
                for (int candidate : window)
                    starts += !window.count((candidate + s.num_candidates - 1) % s.num_candidates);
                ASSERT_EQ(starts, 1) << "step " << t;
                seen[side].insert(window.begin(), window.end());
            }
        }
        for (const std::set<int>& visited : seen)
            EXPECT_EQ(static_cast<std::int64_t>(visited.size()), s.num_candidates);
    }
}

TEST(SwitchScheduleTest, FrozenSlotsAreNotSwitchedAndSidesAreDisjoint) {
    std::vector<SwitchSettings> cases = ring_cases;
    for (SwitchSettings s : ring_cases) {
        s.random_order = true;
        cases.push_back(s);
    }
    for (const SwitchSettings& s : cases) {
        SCOPED_TRACE(text(s));
        SwitchSchedule schedule(s, "m");
        for (std::int64_t t = 0; t < s.steps; ++t) {
            schedule.count_down();
            const std::vector<int> frozen[2] = {schedule.frozen(0), schedule.frozen(1)};
            const Switch now = schedule.advance(t);
            ASSERT_EQ(now.a.slots.size(), now.b.slots.size());
            std::set<int> slots;
            for (int side : {0, 1})
                for (const std::int32_t slot : (side == 0 ? now.a : now.b).slots) {
                    ASSERT_EQ(frozen[side][slot], 0) << "step " << t << " side " << side << " slot " << slot;
                    ASSERT_TRUE(slots.insert(slot).second) << "slot " << slot << " twice at step " << t;
                    ASSERT_EQ(schedule.frozen(1 - side)[slot], s.freeze_steps);
                }
        }
    }
}

TEST(SwitchScheduleTest, CounterLastsForExactlyNUpdates) {
    for (const SwitchSettings& s : ring_cases) {
        SwitchSchedule schedule(s, "m");
        std::int64_t t = 0;
        Switch now;
        while (now.count() == 0) now = after_update(schedule, t++);
        const std::int32_t slot = now.a.slots.front();
        std::int64_t masked = 0;  // number of updates that see the counter of the counterpart
        for (; schedule.frozen(1)[slot] > 0; ++t) {
            ++masked;
            now = after_update(schedule, t);
            for (const std::int32_t other : now.a.slots) ASSERT_NE(other, slot) << "frozen anew";
        }
        EXPECT_EQ(masked, s.freeze_steps) << text(s);
    }
}

TEST(SwitchScheduleTest, FrequencyFollowsThePublishedFormula) {
    SwitchSettings s = settings(512, 2048, 40, 5);
    s.steps = 40000;
    s.ratio = 0.1;
    const double first = 512.0 / 40;
    EXPECT_NEAR(s.rate(-1), first, 1e-12 * first);
    EXPECT_NEAR(s.rate(3999), 0.3 * first, 1e-12 * first);  // update number ratio * T
    EXPECT_NEAR(s.rate(7999), 0.09 * first, 1e-12 * first);
    const double theta = -std::log(0.3) / 4000;
    for (const auto& [factor, share] : {std::pair{2.5, 0.076}, {10.0, 0.19}, {100.0, 0.38}}) {
        const double step = std::log(factor) / theta;
        EXPECT_NEAR(step / 40000, share, 0.005);
        EXPECT_NEAR(s.rate(static_cast<std::int64_t>(step) - 1), first / factor, 1e-3 * first / factor);
    }
    EXPECT_NEAR(s.visits_per_slot() - 1, 0.1 * 40000 / (1.204 * 40), 0.1);  // 83 switches of each slot
    s.steps = 2000;
    EXPECT_NEAR(s.visits_per_slot() - 1, 4.15, 0.05);
}

TEST(SwitchScheduleTest, CountsAreDrawnWithTheRateAsTheirMean) {
    SwitchSettings s = settings(64, 256, 40, 5);
    s.steps = 100000;
    s.ratio = 1e6;  // constant rate 1.6
    SwitchSchedule schedule(s, "m");
    double sum = 0;
    for (std::int64_t t = 0; t < s.steps; ++t) {
        const std::int64_t count = after_update(schedule, t).count();
        ASSERT_TRUE(count == 1 || count == 2) << count;
        sum += static_cast<double>(count);
    }
    // Five standard deviations of the mean of a Bernoulli variable of probability 0.6.
    EXPECT_NEAR(sum / 1e5, s.rate(0), 5 * std::sqrt(0.24 / 1e5));
    EXPECT_NEAR(s.rate(0), 1.6, 1e-4);
}

TEST(SwitchScheduleTest, MatricesAndSeedsDrawTheirOwn) {
    const SwitchSettings s = settings(8, 32, 12, 5);
    SwitchSettings other_seed = s;
    other_seed.seed = 1;
    const auto counts = [](const SwitchSettings& settings, const char* matrix) {
        SwitchSchedule schedule(settings, matrix);
        std::vector<std::int64_t> all;
        for (std::int64_t t = 0; t < 200; ++t) all.push_back(after_update(schedule, t).count());
        return all;
    };
    EXPECT_EQ(counts(s, "m"), counts(s, "m"));
    EXPECT_NE(counts(s, "m"), counts(s, "n"));
    EXPECT_NE(counts(s, "m"), counts(other_seed, "m"));
}

TEST(SwitchScheduleTest, CoverageOfAShortRun) {
    // Low rank 32 of 256 candidates, published defaults, 2000 steps: 165 +- 9 are expected, so not all are
    // used.
    SwitchSettings s = settings(32, 256, 40, 5);
    s.ratio = 0.1;
    const double expected = s.visits_per_slot() * 32;
    EXPECT_NEAR(expected, 164.6, 0.5);
    double sum = 0;
    for (s.seed = 0; s.seed < 100; ++s.seed)
        sum += static_cast<double>(SwitchSchedule(s, "m").candidate_use().candidates);
    EXPECT_NEAR(sum / 100, expected, 4 * 9 / std::sqrt(100.0));
    s.steps = 6000;  // more than the 3400 that full coverage takes on average
    EXPECT_EQ(SwitchSchedule(s, "m").candidate_use().candidates, 256);
}

TEST(SwitchScheduleTest, NumberOfCandidatesUsedIsWhatTheRunUses) {
    for (const bool random_order : {false, true}) {
        SwitchSettings s = settings(6, 50, 10, 3, random_order);
        s.steps = 60;
        SwitchSchedule schedule(s, "m");
        const std::int64_t predicted = schedule.candidate_use().candidates;
        std::set<int> used(schedule.candidates(0).begin(), schedule.candidates(0).end());
        for (std::int64_t t = 0; t < s.steps; ++t)
            for (int candidate : after_update(schedule, t).a.incoming) used.insert(candidate);
        EXPECT_EQ(predicted, static_cast<std::int64_t>(used.size()));
        EXPECT_GT(predicted, 6);
        EXPECT_LT(predicted, 50);
    }
}

TEST(SwitchScheduleTest, SwitchesLeftIsTheSumOfTheRates) {
    const SwitchSettings s = settings(6, 50, 10, 3);
    for (const std::int64_t from : {std::int64_t{0}, s.steps / 3, s.steps - 1, s.steps}) {
        double sum = 0;
        for (std::int64_t t = from; t < s.steps; ++t) sum += s.rate(t);
        EXPECT_NEAR(s.switches_left(from), sum, 1e-12 * (1 + sum)) << from;
    }
}

TEST(SwitchScheduleTest, ABillionStepsAreNotPlayed) {
    SwitchSettings s = settings(8, 64, 40, 5);
    s.steps = 1000000000;
    const auto all = SwitchSchedule(s, "m").candidate_use();  // 56 more at 1 in 5 steps
    EXPECT_EQ(all.candidates, 64);
    EXPECT_LT(all.steps, 1000);
    s.interval = 1e15;  // no switch can be expected
    const auto none = SwitchSchedule(s, "m").candidate_use();
    EXPECT_EQ(none.candidates, 8);
    EXPECT_EQ(none.steps, 0);
    s.interval = 4e8;  // neither: 0.7 * 8 / 4e8 / theta = 11.6 switches in a billion steps
    const auto some = SwitchSchedule(s, "m").candidate_use();
    EXPECT_EQ(some.candidates, 8 + 11);
    EXPECT_EQ(some.steps, SwitchSchedule::max_steps_looked_at);
}

TEST(SwitchScheduleTest, EachCandidateMeetsTwoPartners) {
    const SwitchSettings s = settings(8, 32, 12, 5);
    SwitchSchedule schedule(s, "m");
    std::vector<std::set<int>> partners(32);
    for (std::int64_t t = 0; t < s.steps; ++t) {
        after_update(schedule, t);
        for (int slot = 0; slot < 8; ++slot)
            partners[schedule.candidates(0)[slot]].insert(
                (schedule.candidates(1)[slot] + 32 - schedule.candidates(0)[slot]) % 32);
    }
    for (const std::set<int>& distances : partners) EXPECT_EQ(distances, (std::set<int>{4, 28}));  // +- r/2
}

TEST(SwitchScheduleTest, AnEighthOfTheSlotsIsFrozenAtTheStart) {
    SwitchSettings s = settings(64, 256, 40, 5);
    s.ratio = 1e6;
    SwitchSchedule schedule(s, "m");
    double frozen = 0;
    for (std::int64_t t = 0; t < s.steps; ++t) {
        after_update(schedule, t);
        for (int left : schedule.frozen(0)) frozen += left > 0;
    }
    EXPECT_NEAR(frozen / 64 / static_cast<double>(s.steps), 5.0 / 40, 0.005);
}

TEST(SwitchScheduleTest, OneSlotNeverSwitches) {
    for (const bool random_order : {false, true}) {
        SwitchSettings s = settings(1, 16, 2, 1, random_order);
        EXPECT_EQ(s.most_at_once(), 0);
        SwitchSchedule schedule(s, "m");
        for (std::int64_t t = 0; t < s.steps; ++t) EXPECT_EQ(after_update(schedule, t).count(), 0);
    }
}

TEST(SwitchScheduleTest, AsManySlotsAsCandidatesIsRefused) {
    EXPECT_THROW(SwitchSchedule(settings(16, 16, 40, 5), "m"), InternalError);
}

TEST(SwitchScheduleTest, RandomOrderTakesInactiveCandidatesEvenly) {
    const SwitchSettings s = settings(6, 24, 6, 3, true);
    SwitchSchedule schedule(s, "m"), again(s, "m");
    std::vector<int> taken(24, 0), slot_taken(6, 0);
    int total = 0;
    std::set<int> partners;  // of A's candidate 0
    for (std::int64_t t = 0; t < s.steps; ++t) {
        const std::vector<int> before[2] = {schedule.candidates(0), schedule.candidates(1)};
        const Switch now = after_update(schedule, t), same = after_update(again, t);
        for (int side : {0, 1}) {
            const SideSwitch &x = side == 0 ? now.a : now.b, &y = side == 0 ? same.a : same.b;
            ASSERT_EQ(changes(x), changes(y)) << "not a function of seed, step and matrix";
            for (const auto& [slot, outgoing, incoming] : changes(x)) {
                ASSERT_EQ(before[side][slot], outgoing);
                ASSERT_EQ(std::count(before[side].begin(), before[side].end(), incoming), 0)
                    << "active already";
                if (side == 0) ++taken[incoming], ++slot_taken[slot], ++total;
            }
            const std::vector<int>& active = schedule.candidates(side);
            ASSERT_EQ(std::set<int>(active.begin(), active.end()).size(), active.size());
        }
        for (int slot = 0; slot < 6; ++slot)
            if (schedule.candidates(0)[slot] == 0) partners.insert(schedule.candidates(1)[slot]);
    }
    ASSERT_GT(total, 500);
    // Five standard deviations of a Poisson count.
    for (int count : taken) EXPECT_NEAR(count, total / 24.0, 5 * std::sqrt(total / 24.0));
    for (int count : slot_taken) EXPECT_NEAR(count, total / 6.0, 5 * std::sqrt(total / 6.0));
    EXPECT_GT(partners.size(), 12u) << "pairs are drawn, not fixed as in the ring";
}

TEST(SwitchScheduleTest, TablesGoToAnotherScheduleInTheMiddle) {
    for (const SwitchSettings& base : ring_cases)
        for (const bool random_order : {false, true}) {
            SwitchSettings s = base;
            s.random_order = random_order;
            SwitchSchedule schedule(s, "m");
            bool frozen = false;  // a resume between two switches of a frozen slot
            std::int64_t t = 0;
            for (; t < 40 || (!frozen && s.freeze_steps > 1); ++t) {
                after_update(schedule, t);
                frozen = false;
                for (int left : schedule.frozen(0)) frozen = frozen || (left > 0 && left < s.freeze_steps);
            }
            SwitchSchedule resumed(s, "m");
            resumed.set_state(schedule.state());
            EXPECT_EQ(resumed.state(), schedule.state());
            for (std::int64_t end = t + 200; t < end; ++t) {
                const Switch a = after_update(schedule, t), b = after_update(resumed, t);
                ASSERT_EQ(changes(a.a), changes(b.a)) << text(s);
                ASSERT_EQ(changes(a.b), changes(b.b)) << text(s);
            }
        }
}

TEST(SwitchScheduleTest, TablesThatCannotBeAreRefused) {
    const SwitchSettings s =
        settings(3, 8, 12, 5);  // state: 2 pointers, then per side 3 candidates, 3 counters
    SwitchSchedule schedule(s, "blocks.q");
    const std::vector<std::int64_t> good = schedule.state();
    const auto message = [&](std::size_t position, std::int64_t value) {
        std::vector<std::int64_t> bad = good;
        bad[position] = value;
        return message_of<UserError>([&] { schedule.set_state(bad); });
    };
    EXPECT_CONTAINS(message_of<UserError>([&] { schedule.set_state({1, 2, 3}); }), "3 entries, not 14");
    EXPECT_CONTAINS(message(0, 3), "pointer 3 of 3 slots");
    EXPECT_CONTAINS(message(1, -1), "pointer -1 of 3 slots");
    EXPECT_CONTAINS(message(2, 8), "candidate 8 of 8");
    EXPECT_CONTAINS(message(3, -1), "candidate -1 of 8");
    EXPECT_CONTAINS(message(2, good[3]), "twice");
    EXPECT_CONTAINS(message(5, 6), "frozen for 6 updates");
    EXPECT_CONTAINS(message(13, -1), "frozen for -1 updates");
    for (std::size_t position : {0, 2, 5}) EXPECT_CONTAINS(message(position, 1000), "blocks.q");
    EXPECT_EQ(schedule.state(), good) << "a refused table left traces";
    schedule.set_state(good);
}

}  // namespace
}  // namespace switchyard::test
