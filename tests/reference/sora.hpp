// SoRA on one process in plain double arrays, from arXiv 2311.11696: W_eff = W + s B diag(g) A, the penalty
// lambda mean |g|, and the proximal step of an L1 penalty after AdamW. The gradients of the effective weights
// are arguments.
#pragma once

#include "reference/trained_part.hpp"

namespace switchyard::reference {

struct SoraMatrix {
    int m, n, r;
    double scale;
    double share = 0;          // lambda over the number of gates of all matrices
    Array thresholds;          // of each step; xi is this, times the rate if `soft`
    std::size_t step = 0;
    bool soft = true;
    Array w;                   // (m, n)
    Trained a, b, gate;        // (r, n), B' (r, m), (r, 1)
    Array d_a, d_b, d_gate;

    SoraMatrix(int m, int n, int r, double alpha)
        : m(m), n(n), r(r), scale(alpha / r), w(m * n), a(r, n), b(r, m), gate(r, 1) {}
    void start() {}

    Array effective() {
        Array v = w;
        for (int i = 0; i < m; ++i)
            for (int k = 0; k < r; ++k)
                for (int j = 0; j < n; ++j)
                    v[i * n + j] += scale * b.value(k, i) * gate.value(k, 0) * a.value(k, j);
        return v;
    }
    void set_gradients(const Array& g) {
        d_a.assign(r * n, 0), d_b.assign(r * m, 0), d_gate.assign(r, 0);
        for (int k = 0; k < r; ++k) {
            const double open = gate.value(k, 0);
            for (int i = 0; i < m; ++i)
                for (int j = 0; j < n; ++j) {
                    d_a[k * n + j] += scale * open * b.value(k, i) * g[i * n + j];
                    d_b[k * m + i] += scale * open * a.value(k, j) * g[i * n + j];
                    d_gate[k] += scale * b.value(k, i) * a.value(k, j) * g[i * n + j];
                }
            d_gate[k] += share * ((open > 0) - (open < 0));
        }
    }
    std::vector<TrainedPart> parts() {
        return {{".lora_A", &a, &d_a},
                {".lora_B", &b, &d_b, true},
                {".lora_gate", &gate, &d_gate, false, false, 1e-6}};
    }
    void after_update(double lr) {
        const double xi = (soft ? lr : 1) * thresholds.at(step++);
        for (int k = 0; k < r; ++k) {
            double& x = gate.value(k, 0);
            if (soft) {
                x = x > xi ? x - xi : x < -xi ? x + xi : 0;
                continue;
            }
            if (x > xi) x -= xi;
            if (x < -xi) x += xi;
            if (std::fabs(x) < xi) x = 0;
        }
    }
    std::map<std::string, Array> derived() { return {}; }
};

}  // namespace switchyard::reference
