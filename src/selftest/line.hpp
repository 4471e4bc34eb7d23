// Line: one result of the self-test, with its verdict, words for people and numbers for programs. All ranks
// hold the same lines. Every verdict is given by a function of this file.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

namespace switchyard::selftest {

/// failed: a result is wrong or could not be had; no run should start here. slow: right, but slower than it
/// should be.
enum class Verdict { ok, slow, failed };
const char* name_of(Verdict);  // "ok", "slow", "failed"

struct Line {
    std::string section;  // the key of its array in the JSON
    std::string name;
    Verdict verdict = Verdict::ok;
    std::string result;              // for people, without the name
    std::string advice;              // what is wrong and what to do; empty if the verdict is ok
    nlohmann::ordered_json numbers;  // further keys of its object in the JSON
};

/// The least, median and largest of one number per rank, and the ranks that have the outer ones.
struct Spread {
    double least = 0, median = 0, most = 0;
    int least_rank = 0, most_rank = 0;
};
/// A NaN counts as 0, the worst rate.
Spread spread_of(std::span<const double> values);
nlohmann::ordered_json json_of(const Spread&);

/// `share`: the largest error as a share of its tolerance; a NaN fails.
Verdict verdict_of_error(double share);
/// Ranks do the same work on the same hardware, so one below 0.7 of the median is slow.
Verdict verdict_of_rates(const Spread& rates);
/// Rates of data, B/s, against the least that a run can use; `least` is a number of docs/selftest.md.
Verdict verdict_of_rate(double rate, double least);
/// The worse of two.
Verdict worse(Verdict, Verdict);

}  // namespace switchyard::selftest
