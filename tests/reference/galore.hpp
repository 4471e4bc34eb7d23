// GaLore on one process in plain double arrays: algorithm 2 of arXiv 2403.03507 with decoupled decay, whose
// bases follow the gradient by subspace iteration or are drawn. It knows nothing of ranks or of the program;
// the gradients of the weights and of the dense parameters are arguments.
#pragma once

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
    bool follows = true;
    /// Columns of a drawn basis (projected, r), number k of a matrix.
    std::function<Array(const std::string&, const ProjectedMatrix&, int k)> draw;

    void start() {
        for (auto& [name, x] : matrices) x.q = gram_schmidt(draw(name, x, 0), x.projected(), x.r);
    }
    void step(int t, const std::map<std::string, Array>& gradients, double lr_factor) {
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
