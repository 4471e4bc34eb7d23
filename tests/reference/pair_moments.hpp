// Moments in coordinates that change, by loops in double: a first moment m (r) and a matrix of second moments
// P (r, r), whole.
#pragma once

#include <vector>

namespace switchyard::reference {

struct PairMoment {
    int r;
    std::vector<double> m, p;  // (r), (r, r)

    explicit PairMoment(int r) : r(r), m(r), p(r * r) {}
    /// m = b1 m T + (1 - b1) g; P = b2 T' P T + (1 - b2) g' g.
    void advance(const std::vector<double>& g, const std::vector<double>& map, double beta1, double beta2) {
        std::vector<double> first(r), second(r * r);
        for (int a = 0; a < r; ++a) {
            for (int k = 0; k < r; ++k) first[a] += m[k] * map[k * r + a];
            first[a] = beta1 * first[a] + (1 - beta1) * g[a];
            for (int b = 0; b < r; ++b) {
                double sum = 0;
                for (int k = 0; k < r; ++k)
                    for (int l = 0; l < r; ++l) sum += map[k * r + a] * p[k * r + l] * map[l * r + b];
                second[a * r + b] = beta2 * sum + (1 - beta2) * g[a] * g[b];
            }
        }
        m = first;
        p = second;
    }
    /// The pairs (0, 0), (1, 0), (1, 1), (2, 0), ...
    std::vector<double> pairs() const {
        std::vector<double> all;
        for (int a = 0; a < r; ++a)
            for (int b = 0; b <= a; ++b) all.push_back(p[a * r + b]);
        return all;
    }
    /// q' P q
    double form(const std::vector<double>& q) const {
        double sum = 0;
        for (int a = 0; a < r; ++a)
            for (int b = 0; b < r; ++b) sum += q[a] * p[a * r + b] * q[b];
        return sum;
    }
};

}  // namespace switchyard::reference
