// What all parts of the self-test are given, how they measure, and how what goes wrong on one rank becomes
// the same line on all of them. All functions here are collective over the world unless they say otherwise.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/collectives.hpp"
#include "comm/topology.hpp"
#include "config/config.hpp"
#include "selftest/line.hpp"

namespace switchyard::selftest {

struct Setting {
    const Config& config;  // validated and resolved
    const Topology& topology;
    DType dtype;                     // compute type
    std::vector<std::string> hosts;  // of all ranks, on all ranks

    /// "rank 3 (node17)"
    std::string rank_text(int rank) const;
};

Setting make_setting(const Config&, const Topology&);

/// Runs `work`, which must not communicate, on every rank. Returns the same text on all of them: the message
/// of the lowest rank where it threw, after that rank's name; empty if it threw nowhere.
std::string problem_of(const Setting&, const std::function<void()>& work);

/// Each rank's seconds for one call of `work`, which must not communicate: the shortest of several calls, by
/// the points in time of the back end. All ranks measure at the same time, as in training.
struct Timing {
    std::vector<double> seconds;  // by rank
    std::string problem;          // as problem_of(); then there are no seconds
    /// `amount` per second, by rank.
    std::vector<double> rates(double amount) const;
};
Timing time_of(const Setting&, const std::function<void()>& work);

/// A line about rates: `amount` per call in `unit` ("FLOP/s", "B/s"), with the verdict of ranks beside each
/// other. `numbers` may have keys already.
Line rate_line(const Setting&, Line line, const Timing&, double amount, const std::string& unit);

}  // namespace switchyard::selftest
