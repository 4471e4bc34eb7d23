// GaLore on one process in plain double arrays: algorithm 2 of arXiv 2403.03507 with decoupled decay, whose
// bases follow the gradient by subspace iteration, are its singular vectors, or are drawn. It knows nothing
// of ranks or of the program; the gradients of the weights and of the dense parameters are arguments.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "reference/adamw.hpp"

namespace switchyard::reference {

using Array = std::vector<double>;

/// columns of a (rows, r), one after the other: minus their parts along those before, then of length 1.
inline Array gram_schmidt(Array a, int rows, int r) {
    for (int j = 0; j < r; ++j)
        for (int pass = 0; pass < 2; ++pass) {
            for (int k = 0; k < j; ++k) {
                double dot = 0;
                for (int i = 0; i < rows; ++i) dot += a[i * r + k] * a[i * r + j];
                for (int i = 0; i < rows; ++i) a[i * r + j] -= dot * a[i * r + k];
            }
            double square = 0;
            for (int i = 0; i < rows; ++i) square += a[i * r + j] * a[i * r + j];
            for (int i = 0; i < rows; ++i) a[i * r + j] /= std::sqrt(square);
        }
    return a;
}

/// Eigenvectors of the r largest eigenvalues of a symmetric matrix (n, n), as columns (n, r), by Jacobi's
/// rotations; each has its largest element positive.
inline Array leading_eigenvectors(Array a, int n, int r) {
    Array vectors(n * n, 0.0);
    for (int i = 0; i < n; ++i) vectors[i * n + i] = 1;
    double beside = 1, whole = 0;
    for (int sweep = 0; sweep < 60 && beside > 1e-36 * whole; ++sweep) {
        for (int p = 0; p < n; ++p)
            for (int q = p + 1; q < n; ++q) {
                if (std::fabs(a[p * n + q]) < 1e-20 * std::sqrt(whole)) continue;
                const double tangent = [&] {
                    const double x = (a[q * n + q] - a[p * n + p]) / (2 * a[p * n + q]);
                    return (x < 0 ? -1 : 1) / (std::fabs(x) + std::hypot(1, x));
                }();
                const double c = 1 / std::hypot(1, tangent), s = c * tangent;
                const auto turn = [&](double& x, double& y) {
                    const double old = x;
                    x = c * old - s * y;
                    y = s * old + c * y;
                };
                for (int i = 0; i < n; ++i) turn(a[i * n + p], a[i * n + q]);
                for (int i = 0; i < n; ++i) turn(a[p * n + i], a[q * n + i]);
                for (int i = 0; i < n; ++i) turn(vectors[i * n + p], vectors[i * n + q]);
            }
        beside = whole = 0;
        for (int i = 0; i < n; ++i)
            for (int j = 0; j < n; ++j) (i == j ? whole : beside) += a[i * n + j] * a[i * n + j];
    }
    std::vector<int> order(n);
    for (int i = 0; i < n; ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](int i, int j) { return a[i * n + i] > a[j * n + j]; });
    Array result(n * r);
    for (int k = 0; k < r; ++k) {
        double largest = 0;
        for (int i = 0; i < n; ++i)
            if (std::fabs(vectors[i * n + order[k]]) > std::fabs(largest))
                largest = vectors[i * n + order[k]];
        for (int i = 0; i < n; ++i) result[i * r + k] = vectors[i * n + order[k]] * (largest < 0 ? -1 : 1);
    }
    return result;
}

/// W (m, n), of which the input (n) or the output (m) is projected by the columns of Q.
struct ProjectedMatrix {
    int m = 0, n = 0, r = 0;
    bool inputs = true;
    Array w, q, range;                 // range: of R, while the next step is to follow it
    std::vector<AdamWNumber> numbers;  // (kept, r): moments and, as value, Adam's direction
    int steps = 0;

    ProjectedMatrix(int m, int n, int r, bool inputs) : m(m), n(n), r(r), inputs(inputs), w(m * n) {
        numbers.resize(kept() * r);
    }
    int kept() const { return inputs ? m : n; }
    int projected() const { return inputs ? n : m; }
    /// Element of a matrix like W by kept and projected position.
    int at(int kept, int projected) const { return inputs ? kept * n + projected : projected * n + kept; }

    /// R = G Q, or G' Q: (kept, r).
    Array project(const Array& g) const {
        Array result(kept() * r, 0.0);
        for (int i = 0; i < kept(); ++i)
            for (int p = 0; p < projected(); ++p)
                for (int j = 0; j < r; ++j) result[i * r + j] += g[at(i, p)] * q[p * r + j];
        return result;
    }
    /// G' U, or G U: (projected, r).
    Array image(const Array& g) const {
        Array result(projected() * r, 0.0);
        for (int i = 0; i < kept(); ++i)
            for (int p = 0; p < projected(); ++p)
                for (int j = 0; j < r; ++j) result[p * r + j] += g[at(i, p)] * range[i * r + j];
        return result;
    }
    /// The leading singular vectors of G on the projected side: (projected, r).
    Array singular_vectors(const Array& g) const {
        const int p = projected();
        Array gram(p * p, 0.0);
        for (int k = 0; k < kept(); ++k)
            for (int i = 0; i < p; ++i)
                for (int j = 0; j < p; ++j) gram[i * p + j] += g[at(k, i)] * g[at(k, j)];
        return leading_eigenvectors(std::move(gram), p, r);
    }
    void update(const Array& projected_gradient, double clip, double alpha, AdamWRates rates) {
        const double lr = rates.lr, decay = rates.weight_decay;
        rates.lr = -1, rates.weight_decay = 0;  // the value becomes the direction
        ++steps;
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            numbers[i].value = 0;
            adamw(numbers[i], clip * projected_gradient[i], steps, rates);
        }
        for (double& x : w) x *= 1 - lr * decay;
        for (int i = 0; i < kept(); ++i)
            for (int p = 0; p < projected(); ++p)
                for (int j = 0; j < r; ++j)
                    w[at(i, p)] -= lr * alpha * numbers[i * r + j].value * q[p * r + j];
    }
};

/// Dense parameters: values and moments.
struct DenseNumbers {
    int rows = 0, cols = 0;
    std::vector<AdamWNumber> numbers;
    int steps = 0;
};

struct GaloreRun {
    std::map<std::string, ProjectedMatrix> matrices;
    std::map<std::string, DenseNumbers> dense;
    AdamWRates rates{};  // lr: the peak, of projected matrices
    double alpha = 0, dense_lr = 0, clip_norm = 0, grad_norm = 0;
    int interval = 1;
    bool follows = true, singular = false;  // how bases change; neither: they are drawn
    bool together = false;                  // singular: all in one step, or in turns, in this order
    std::vector<std::string> order;
    /// Columns of a drawn basis (projected, r), number k of a matrix.
    std::function<Array(const std::string&, const ProjectedMatrix&, int k)> draw;

    void start() {
        for (auto& [name, x] : matrices) x.q = gram_schmidt(draw(name, x, 0), x.projected(), x.r);
    }
    void step(int t, const std::map<std::string, Array>& gradients, double lr_factor) {
        if (singular)
            for (std::size_t j = 0; j < order.size(); ++j) {
                const int turn =
                    together ? 0 : static_cast<int>(j) * interval / static_cast<int>(order.size());
                ProjectedMatrix& x = matrices.at(order[j]);
                if (t % interval == turn) x.q = x.singular_vectors(gradients.at(order[j]));
            }
        std::map<std::string, Array> projected;
        double sum = 0;
        for (auto& [name, x] : matrices) {
            projected[name] = x.project(gradients.at(name));
            for (double value : projected[name]) sum += value * value;
        }
        for (auto& [name, x] : dense)
            for (double value : gradients.at(name)) sum += value * value;
        grad_norm = std::sqrt(sum);
        const double clip = std::min(1.0, clip_norm / grad_norm);
        AdamWRates now = rates;
        now.lr = dense_lr * lr_factor;
        for (auto& [name, x] : dense) {
            now.weight_decay = x.cols == 1 ? 0 : rates.weight_decay;  // gains of norms do not decay
            ++x.steps;
            for (std::size_t i = 0; i < x.numbers.size(); ++i)
                adamw(x.numbers[i], clip * gradients.at(name)[i], x.steps, now);
        }
        now.weight_decay = rates.weight_decay;
        now.lr = rates.lr * lr_factor;
        for (auto& [name, x] : matrices) {
            x.update(projected[name], clip, alpha, now);
            if (singular) continue;
            if (!follows) {
                if ((t + 1) % interval == 0)
                    x.q = gram_schmidt(draw(name, x, (t + 1) / interval), x.projected(), x.r);
            } else if (!x.range.empty()) {
                x.q = gram_schmidt(x.image(gradients.at(name)), x.projected(), x.r);
                x.range.clear();
            } else if (t % interval == 0) {
                x.range = gram_schmidt(projected[name], x.kept(), x.r);
            }
        }
    }
};

}  // namespace switchyard::reference
