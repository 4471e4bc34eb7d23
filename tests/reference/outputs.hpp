// The end of a linear's output in double.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::reference {

/// y (rows, m) <- y + bias, or y where the bias is empty.
inline std::vector<double> with_bias(std::vector<double> y, const std::vector<double>& bias) {
    for (std::size_t i = 0; i < y.size() && !bias.empty(); ++i) y[i] += bias[i % bias.size()];
    return y;
}

struct Distance {
    std::vector<double> differences;
    double squares = 0;
};
inline Distance distance(const std::vector<double>& y, const std::vector<double>& teacher) {
    Distance d;
    for (std::size_t i = 0; i < y.size(); ++i) {
        d.differences.push_back(y[i] - teacher[i]);
        d.squares += d.differences.back() * d.differences.back();
    }
    return d;
}

}  // namespace switchyard::reference
