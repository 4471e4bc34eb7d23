// The verdicts, and one number per rank as three.
#include "selftest/line.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace switchyard::selftest {

const char* name_of(Verdict verdict) {
    switch (verdict) {
        case Verdict::ok:
            return "ok";
        case Verdict::slow:
            return "slow";
        default:
            return "failed";
    }
}

Spread spread_of(std::span<const double> values) {
    std::vector<std::pair<double, int>> sorted;
    for (double value : values)
        sorted.emplace_back(std::isnan(value) ? 0 : value, static_cast<int>(sorted.size()));
    if (sorted.empty()) return {};
    std::sort(sorted.begin(), sorted.end());
    const std::size_t n = sorted.size();
    const double median = (sorted[(n - 1) / 2].first + sorted[n / 2].first) / 2;
    return {sorted.front().first, median, sorted.back().first, sorted.front().second, sorted.back().second};
}

nlohmann::ordered_json json_of(const Spread& spread) {
    return {{"least", spread.least},
            {"median", spread.median},
            {"most", spread.most},
            {"least_rank", spread.least_rank},
            {"most_rank", spread.most_rank}};
}

Verdict verdict_of_error(double share) {
    return share <= 1 ? Verdict::ok : Verdict::failed;
}

Verdict verdict_of_rates(const Spread& rates) {
    return rates.least >= 0.7 * rates.median ? Verdict::ok : Verdict::slow;
}

Verdict verdict_of_rate(double rate, double least) {
    return rate >= least ? Verdict::ok : Verdict::slow;
}

Verdict worse(Verdict a, Verdict b) {
    return std::max(a, b);
}

}  // namespace switchyard::selftest
