// Flat-LoRA on one process in plain double arrays, from arXiv 2409.14396: products use W + s B A + E in a step,
// E_ij ~ N(0, sigma_t^2 / n |row i of W + s B A|^2), sigma_t = sigma (1 - cos(pi t / T)) / 2. The gradients of
// the effective weights are arguments.
#pragma once

#include <numbers>
#include <string>

#include "core/rng.hpp"
#include "reference/trained_part.hpp"

namespace switchyard::reference {

struct FlatLoraMatrix {
    int m, n, r;
    double scale;
    std::string name;     // of the linear
    double noise = 0;     // sigma
    int steps = 1;        // T
    std::uint64_t seed = 0;
    int step = 0;         // t
    Array w;              // (m, n)
    Trained a, b;         // (r, n), B' (r, m)
    Array d_a, d_b;

    FlatLoraMatrix(int m, int n, int r, double alpha)
        : m(m), n(n), r(r), scale(alpha / r), w(m * n), a(r, n), b(r, m) {}
    void start() {}

    /// Without noise.
    Array mean() const {
        Array v = w;
        for (int i = 0; i < m; ++i)
            for (int k = 0; k < r; ++k)
                for (int j = 0; j < n; ++j)
                    v[i * n + j] += scale * b.numbers[k * m + i].value * a.numbers[k * n + j].value;
        return v;
    }
    /// E of a step; `replica`: what follows the step in the stream's name.
    Array noise_of(int t, const std::string& replica = "") const {
        const double sigma = noise * (1 - std::cos(std::numbers::pi * t / steps)) / 2;
        const std::uint64_t key = stream_key(seed, name + ".weight noise " + std::to_string(t) + replica);
        const Array v = mean();
        Array e(m * n);
        for (int i = 0; i < m; ++i) {
            double square = 0;
            for (int j = 0; j < n; ++j) square += v[i * n + j] * v[i * n + j];
            for (int j = 0; j < n; ++j)
                e[i * n + j] = sigma * std::sqrt(square / n) * normal(key, static_cast<std::uint64_t>(i * n + j));
        }
        return e;
    }
    Array effective() const {
        Array v = mean();
        const Array e = noise_of(step);
        for (int i = 0; i < m * n; ++i) v[i] += e[i];
        return v;
    }
    void set_gradients(const Array& g) {
        d_a.assign(r * n, 0), d_b.assign(r * m, 0);
        for (int k = 0; k < r; ++k)
            for (int i = 0; i < m; ++i)
                for (int j = 0; j < n; ++j) {
                    d_a[k * n + j] += scale * b.value(k, i) * g[i * n + j];
                    d_b[k * m + i] += scale * a.value(k, j) * g[i * n + j];
                }
    }
    std::vector<TrainedPart> parts() { return {{".lora_A", &a, &d_a}, {".lora_B", &b, &d_b, true}}; }
    void after_update(double) { ++step; }
    std::map<std::string, Array> derived() { return {}; }
};

}  // namespace switchyard::reference
