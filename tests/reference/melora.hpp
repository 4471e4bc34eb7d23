// MELoRA on one process in plain double arrays, from arXiv 2402.17263: W_eff = W + s blockdiag(B_1 A_1, ...).
// The gradients of the effective weights are arguments.
#pragma once

#include "reference/trained_part.hpp"

namespace switchyard::reference {

struct MeloraMatrix {
    int m, n, r, minis;
    double scale;
    Array w;       // (m, n)
    Trained a, b;  // (r, n): columns of block i are A_i; (m, r): rows of block i are B_i
    Array d_a, d_b;

    MeloraMatrix(int m, int n, int r, double alpha, int minis)
        : m(m), n(n), r(r), minis(minis), scale(alpha / r), w(m * n), a(r, n), b(m, r) {}
    void start() {}

    Array effective() {
        Array v = w;
        for_blocks([&](int i, int j) {
            for (int k = 0; k < r; ++k) v[i * n + j] += scale * b.value(i, k) * a.value(k, j);
        });
        return v;
    }
    void set_gradients(const Array& g) {
        d_a.assign(r * n, 0), d_b.assign(m * r, 0);
        for_blocks([&](int i, int j) {
            for (int k = 0; k < r; ++k) {
                d_a[k * n + j] += scale * b.value(i, k) * g[i * n + j];
                d_b[i * r + k] += scale * a.value(k, j) * g[i * n + j];
            }
        });
    }
    std::vector<TrainedPart> parts() { return {{".lora_A", &a, &d_a}, {".lora_B", &b, &d_b}}; }
    void after_update(double) {}
    std::map<std::string, Array> derived() { return {}; }

  private:
    /// element(i, j) for the elements of W that have a product.
    template <class Element>
    void for_blocks(const Element& element) const {
        for (int i = 0; i < m; ++i)
            for (int j = i / (m / minis) * (n / minis), end = j + n / minis; j < end; ++j) element(i, j);
    }
};

}  // namespace switchyard::reference
