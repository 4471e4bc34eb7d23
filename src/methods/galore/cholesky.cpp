// Every inner loop runs along rows. The order of all sums is fixed, so the bits are the same on every rank.
#include "methods/galore/cholesky.hpp"

#include <cmath>
#include <vector>

namespace switchyard {

bool orthonormalising_map(std::span<double> gram, std::int64_t r) {
    const auto at = [&](std::int64_t i, std::int64_t j) -> double& { return gram[i * r + j]; };
    std::vector<double> length(r), inverse(r * r, 0.0);
    for (std::int64_t i = 0; i < r; ++i) {
        length[i] = std::sqrt(at(i, i));
        if (!(length[i] > 0) || !std::isfinite(length[i])) return false;
    }
    for (std::int64_t i = 0; i < r; ++i)
        for (std::int64_t j = i; j < r; ++j) at(i, j) /= length[i] * length[j];
    for (std::int64_t k = 0; k < r; ++k) {  // R replaces the upper triangle
        constexpr double smallest = 1e-10;  // squared length of what is left of a column
        if (!(at(k, k) > smallest)) return false;
        const double pivot = std::sqrt(at(k, k));
        for (std::int64_t j = k; j < r; ++j) at(k, j) /= pivot;
        for (std::int64_t i = k + 1; i < r; ++i) {
            const double factor = at(k, i);
            for (std::int64_t j = i; j < r; ++j) at(i, j) -= factor * at(k, j);
        }
    }
    for (std::int64_t i = r - 1; i >= 0; --i) {  // R T = 1, from the last row up
        double* row = inverse.data() + i * r;
        row[i] = 1;
        for (std::int64_t k = i + 1; k < r; ++k) {
            const double factor = at(i, k), *below = inverse.data() + k * r;
            for (std::int64_t j = k; j < r; ++j) row[j] -= factor * below[j];
        }
        for (std::int64_t j = i; j < r; ++j) row[j] /= at(i, i);
    }
    bool finite = true;
    for (std::int64_t i = 0; i < r; ++i)
        for (std::int64_t j = 0; j < r; ++j) {
            at(i, j) = inverse[i * r + j] / length[i];
            finite = finite && std::isfinite(at(i, j));
        }
    return finite;
}

}  // namespace switchyard
