// Muon on one process in plain double arrays, from Jordan et al. 2024 and arXiv 2502.16982. The gradients of
// the weights are arguments.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace switchyard::reference {

/// x (m, n) y (n, k)
inline std::vector<double> product(const std::vector<double>& x, const std::vector<double>& y, int m, int n,
                                   int k) {
    std::vector<double> result(static_cast<std::size_t>(m * k), 0.0);
    for (int i = 0; i < m; ++i)
        for (int l = 0; l < n; ++l)
            for (int j = 0; j < k; ++j) result[i * k + j] += x[i * n + l] * y[l * k + j];
    return result;
}

/// X (m, n) / max(|X|, 1e-7), then X <- a X + b (X X') X + c (X X')^2 X some times.
inline std::vector<double> newton_schulz(std::vector<double> x, int m, int n, int iterations) {
    double square = 0;
    for (double value : x) square += value * value;
    for (double& value : x) value /= std::max(std::sqrt(square), 1e-7);
    for (int k = 0; k < iterations; ++k) {
        std::vector<double> turned(x.size());
        for (int i = 0; i < m; ++i)
            for (int j = 0; j < n; ++j) turned[j * m + i] = x[i * n + j];
        const std::vector<double> gram = product(x, turned, m, n, m), third = product(gram, x, m, m, n),
                                  fifth = product(gram, third, m, m, n);
        for (std::size_t i = 0; i < x.size(); ++i)
            x[i] = 3.4445 * x[i] - 4.7750 * third[i] + 2.0315 * fifth[i];
    }
    return x;
}

struct MuonMatrix {
    int m, n;
    double momentum = 0.95;
    bool nesterov = true, as_adamw = true;
    int iterations = 5;
    std::vector<double> w, gradient, moment;

    MuonMatrix(int m, int n) : m(m), n(n), w(m * n), gradient(m * n), moment(m * n) {}
    void start() {}
    std::vector<double> effective() const { return w; }
    void set_gradients(const std::vector<double>& g) { gradient = g; }

    void move(double clip, double lr, double decay) {
        std::vector<double> ahead(w.size());
        for (std::size_t i = 0; i < w.size(); ++i) {
            const double fresh = (1 - momentum) * clip * gradient[i];
            moment[i] = momentum * moment[i] + fresh;
            ahead[i] = nesterov ? momentum * moment[i] + fresh : moment[i];
        }
        const std::vector<double> o = newton_schulz(ahead, m, n, iterations);
        const double scale =
            as_adamw ? 0.2 * std::sqrt(std::max(m, n)) : std::sqrt(std::max(1.0, static_cast<double>(m) / n));
        for (std::size_t i = 0; i < w.size(); ++i) w[i] = w[i] * (1 - lr * decay) - lr * scale * o[i];
    }
};

}  // namespace switchyard::reference
