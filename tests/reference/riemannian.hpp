// Riemannian preconditioned LoRA on one process in plain double arrays, from arXiv 2402.02347: W_eff = W + s
// B A, and AdamW of (B' B + d I)^-1 dA and dB (A A' + d I)^-1, both with the factors before the update. The
// gradients of the effective weights are arguments.
#pragma once

#include <algorithm>

#include "reference/trained_part.hpp"

namespace switchyard::reference {

/// The solution x of x (f' f + damping I) = each row of g, for f (rows, r) and g (any, r), by elimination
/// with pivots.
inline Array divided_by_gram(const Trained& f, double damping, const Array& g) {
    const int r = f.cols, count = static_cast<int>(g.size()) / r;
    std::vector<Array> table(r, Array(r + count));  // the symmetric matrix, then a column for each row of g
    for (int i = 0; i < r; ++i) {
        for (int j = 0; j < r; ++j) {
            table[i][j] = i == j ? damping : 0;
            for (int row = 0; row < f.rows; ++row)
                table[i][j] += f.numbers[row * r + i].value * f.numbers[row * r + j].value;
        }
        for (int row = 0; row < count; ++row) table[i][r + row] = g[row * r + i];
    }
    for (int k = 0; k < r; ++k) {
        int pivot = k;
        for (int i = k; i < r; ++i)
            if (std::fabs(table[i][k]) > std::fabs(table[pivot][k])) pivot = i;
        std::swap(table[k], table[pivot]);
        for (int i = 0; i < r; ++i) {
            if (i == k) continue;
            const double factor = table[i][k] / table[k][k];
            for (int j = k; j < r + count; ++j) table[i][j] -= factor * table[k][j];
        }
    }
    Array x(g.size());
    for (int row = 0; row < count; ++row)
        for (int i = 0; i < r; ++i) x[row * r + i] = table[i][r + row] / table[i][i];
    return x;
}

struct RiemannianMatrix {
    int m, n, r;
    double scale, damping = 0;
    bool subtracts = false;  // s B A of the start from W, so that the map stays what W was
    Array w;                 // (m, n)
    Trained a, b;            // A' (n, r), B (m, r)
    Array d_a, d_b;

    RiemannianMatrix(int m, int n, int r, double alpha)
        : m(m), n(n), r(r), scale(alpha / r), w(m * n), a(n, r), b(m, r) {}
    void start() {
        if (subtracts) add(-1);
    }
    Array effective() {
        const Array stored = w;
        add(1);
        Array sum = stored;
        std::swap(sum, w);
        return sum;
    }
    void set_gradients(const Array& g) {
        d_a.assign(n * r, 0), d_b.assign(m * r, 0);
        for (int i = 0; i < m; ++i)
            for (int j = 0; j < n; ++j)
                for (int k = 0; k < r; ++k) {
                    d_a[j * r + k] += scale * b.value(i, k) * g[i * n + j];
                    d_b[i * r + k] += scale * a.value(j, k) * g[i * n + j];
                }
    }
    /// After the norm of the gradients has been taken.
    void before_update() {
        d_a = divided_by_gram(b, damping, d_a);
        d_b = divided_by_gram(a, damping, d_b);
    }
    std::vector<TrainedPart> parts() { return {{".lora_A", &a, &d_a, true}, {".lora_B", &b, &d_b}}; }
    void after_update(double) {}
    std::map<std::string, Array> derived() { return {}; }

  private:
    void add(double sign) {
        for (int i = 0; i < m; ++i)
            for (int k = 0; k < r; ++k)
                for (int j = 0; j < n; ++j) w[i * n + j] += sign * scale * b.value(i, k) * a.value(j, k);
    }
};

}  // namespace switchyard::reference
