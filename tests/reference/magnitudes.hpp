// Pruning by magnitude in plain C++: sorting, and comparing numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace switchyard::reference {

/// The magnitude of rank k (0: the smallest) among all values.
inline double magnitude_of_rank(std::vector<double> values, std::size_t k) {
    for (double& x : values) x = std::fabs(x);
    std::sort(values.begin(), values.end());
    return values.at(k);
}

/// The values where the key's magnitude exceeds the limit, zero elsewhere.
inline std::vector<double> above(std::vector<double> values, const std::vector<double>& keys, double limit) {
    for (std::size_t i = 0; i < values.size(); ++i)
        if (!(std::fabs(keys[i]) > limit)) values[i] = 0;
    return values;
}

}  // namespace switchyard::reference
