// APOLLO on one process in plain double arrays: algorithm 1 of arXiv 2412.05270 with decoupled decay and the
// limiter of Fira. It knows nothing of ranks or of the program; gradients and random projections are
// arguments.
#pragma once

#include <cmath>
#include <vector>

#include "reference/adamw.hpp"

namespace switchyard::reference {

/// W (m, n), of which the input (n) or the output (m) is projected by a random P (projected, r). A channel is
/// an element of the other dimension, called kept.
struct ScaledMatrix {
    int m = 0, n = 0, r = 0;
    bool inputs = true, by_channel = true;
    double alpha = 1, growth = 0;
    std::vector<double> w;
    std::vector<AdamWNumber> numbers;  // (kept, r): moments and, as value, Adam's direction
    int steps = 0;
    double norm = 0;      // of the last update, without alpha
    bool limited = false;  // the last update was

    ScaledMatrix(int m, int n, int r, bool inputs) : m(m), n(n), r(r), inputs(inputs), w(m * n) {
        numbers.resize(kept() * r);
    }
    int kept() const { return inputs ? m : n; }
    int projected() const { return inputs ? n : m; }
    /// Element of a matrix like W by kept and projected position.
    int at(int kept, int projected) const { return inputs ? kept * n + projected : projected * n + kept; }

    /// g: the clipped gradient; p (projected, r).
    void update(const std::vector<double>& g, const std::vector<double>& p, AdamWRates rates) {
        const double lr = rates.lr, decay = rates.weight_decay;
        rates.lr = -1, rates.weight_decay = 0;  // the value becomes the direction
        ++steps;
        std::vector<double> direction(kept(), 0.0), projection(kept(), 0.0);  // squares of rows
        double all_direction = 0, all_projection = 0;
        for (int i = 0; i < kept(); ++i)
            for (int j = 0; j < r; ++j) {
                double sum = 0;
                for (int k = 0; k < projected(); ++k) sum += g[at(i, k)] * p[k * r + j];
                AdamWNumber& x = numbers[i * r + j];
                x.value = 0;
                adamw(x, sum, steps, rates);
                direction[i] += x.value * x.value, projection[i] += sum * sum;
                all_direction += x.value * x.value, all_projection += sum * sum;
            }
        std::vector<double> update(m * n);
        double square = 0;
        for (int i = 0; i < kept(); ++i) {
            const double from = by_channel ? projection[i] : all_projection,
                         to = by_channel ? direction[i] : all_direction,
                         scale = from > 0 ? std::sqrt(to / from) : 0;
            for (int k = 0; k < projected(); ++k) {
                const double value = update[at(i, k)] = scale * g[at(i, k)];
                square += value * value;
            }
        }
        const double now = std::sqrt(square);
        limited = growth > 0 && norm > 0 && now / norm > growth;
        const double factor = limited ? growth * norm / now : 1;
        norm = factor * now;
        for (std::size_t i = 0; i < w.size(); ++i)
            w[i] -= lr * (alpha * factor * update[i] + decay * w[i]);
    }
};

}  // namespace switchyard::reference
