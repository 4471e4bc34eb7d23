// DoRA on one process in plain double arrays, from arXiv 2402.09353: W_eff = g o V, V = W + s B A, g_i =
// magnitude_i / |V_i|. The gradients of the effective weights are arguments.
#pragma once

#include "reference/trained_part.hpp"

namespace switchyard::reference {

struct DoraMatrix {
    int m, n, r;
    double scale;
    bool exact;         // the norm is no constant of the backward pass
    Array w;            // (m, n)
    Trained a, b, mag;  // (r, n), B' (r, m), (m, 1)
    Array d_a, d_b, d_mag;

    DoraMatrix(int m, int n, int r, double alpha, bool exact)
        : m(m), n(n), r(r), scale(alpha / r), exact(exact), w(m * n), a(r, n), b(r, m), mag(m, 1) {}

    Array direction() {  // V
        Array v = w;
        for (int i = 0; i < m; ++i)
            for (int k = 0; k < r; ++k)
                for (int j = 0; j < n; ++j) v[i * n + j] += scale * b.value(k, i) * a.value(k, j);
        return v;
    }
    static double dot(const double* x, const double* y, int n) {
        double sum = 0;
        for (int j = 0; j < n; ++j) sum += x[j] * y[j];
        return sum;
    }
    Array norms() {
        const Array v = direction();
        Array c(m);
        for (int i = 0; i < m; ++i) c[i] = std::sqrt(dot(&v[i * n], &v[i * n], n));
        return c;
    }
    void start() {
        const Array c = norms();
        for (int i = 0; i < m; ++i) mag.value(i, 0) = c[i];
    }
    Array row_scale() {
        Array g = norms();
        for (int i = 0; i < m; ++i) g[i] = mag.value(i, 0) / g[i];
        return g;
    }
    Array effective() {
        Array v = direction();
        const Array g = row_scale();
        for (int i = 0; i < m * n; ++i) v[i] *= g[i / n];
        return v;
    }
    /// From G = d W_eff (m, n): dmag_i = <G_i, V_i> / c_i; dV_i = g_i G_i, without its part along V_i if the
    /// norm counts; dB = s dV A', dA = s B' dV.
    void set_gradients(const Array& big_g) {
        const Array v = direction(), c = norms();
        d_a.assign(r * n, 0), d_b.assign(r * m, 0), d_mag.assign(m, 0);
        for (int i = 0; i < m; ++i) {
            const double along = dot(&big_g[i * n], &v[i * n], n);
            d_mag[i] = along / c[i];
            for (int j = 0; j < n; ++j) {
                const double d_v = mag.value(i, 0) / c[i] *
                                   (big_g[i * n + j] - (exact ? along / (c[i] * c[i]) * v[i * n + j] : 0));
                for (int k = 0; k < r; ++k) {
                    d_a[k * n + j] += scale * b.value(k, i) * d_v;
                    d_b[k * m + i] += scale * a.value(k, j) * d_v;
                }
            }
        }
    }
    std::vector<TrainedPart> parts() {
        return {{".lora_A", &a, &d_a},
                {".lora_B", &b, &d_b, true},
                {".lora_magnitude", &mag, &d_mag, false, false}};
    }
    void after_update(double) {}
    std::map<std::string, Array> derived() { return {{".row_scale", row_scale()}}; }
};

}  // namespace switchyard::reference
