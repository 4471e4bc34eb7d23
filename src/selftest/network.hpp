// Collectives on back-end memory within the groups of a run: are their results right, and how fast are they?
#pragma once

#include "selftest/setting.hpp"

namespace switchyard::selftest {

/// All-reduce and exchange (each rank with each) in the groups tp, dp and, if both have several ranks, world,
/// at three lengths. All groups of a kind work at the same time, as in training. No lines for groups of one.
std::vector<Line> collective_lines(const Setting&);

/// Collectives below this rate, B/s that a rank sends, are slow: Gigabit Ethernet.
inline constexpr double least_network_rate = 0.15e9;

}  // namespace switchyard::selftest
