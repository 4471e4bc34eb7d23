// ReLoRA on one process in plain double arrays (arXiv 2307.05695, section 3): LoRA, whose product is merged
// after every q-th update; then A is drawn anew, B is zero, and a part of the moments of both is set to zero.
// The gradients of the effective weights and of the dense parameters are arguments, and so are random
// numbers.
#pragma once

#include "reference/magnitudes.hpp"
#include "reference/switchlora.hpp"

namespace switchyard::reference {

/// y = (W + s B A) x with W (m, n); B is kept transposed.
struct MergedMatrix {
    int m, n, r;
    double scale;
    Array w;
    Trained factor[2];  // A (r, n), B' (r, m)

    MergedMatrix(int m, int n, int r, double alpha) : m(m), n(n), r(r), scale(alpha / r), w(m * n) {
        factor[0] = Trained(r, n);
        factor[1] = Trained(r, m);
    }
    Array effective() {
        Array sum = w;
        for (int i = 0; i < m; ++i)
            for (int j = 0; j < n; ++j)
                for (int slot = 0; slot < r; ++slot)
                    sum[i * n + j] += scale * factor[1].value(slot, i) * factor[0].value(slot, j);
        return sum;
    }
    /// d A = s B' G and d B' = s A G' from G = d W_eff (m, n).
    std::array<Array, 2> factor_gradients(const Array& g) {
        std::array<Array, 2> gradient{Array(r * n), Array(r * m)};
        for (int slot = 0; slot < r; ++slot)
            for (int i = 0; i < m; ++i)
                for (int j = 0; j < n; ++j) {
                    gradient[0][slot * n + j] += scale * factor[1].value(slot, i) * g[i * n + j];
                    gradient[1][slot * m + i] += scale * factor[0].value(slot, j) * g[i * n + j];
                }
        return gradient;
    }
};

/// Keeps what exceeds the magnitude of rank floor(ratio (N - 1)).
inline Array without_smallest(const Array& moment, double ratio) {
    const auto k = static_cast<std::size_t>(ratio * static_cast<double>(moment.size() - 1));
    return above(moment, moment, magnitude_of_rank(moment, k));
}

struct ReloraRun {
    std::map<std::string, MergedMatrix> matrices;
    std::map<std::string, Trained> dense;
    AdamWRates rates{};  // lr: the peak, of factors
    double dense_lr = 0, clip_norm = 0, grad_norm = 0;

    void step(const std::map<std::string, Array>& gradients, double lr_factor) {
        std::map<std::string, std::array<Array, 2>> of_factors;
        double sum = 0;
        const auto add_squares = [&](const Array& values) {
            for (double x : values) sum += x * x;
        };
        for (auto& [name, x] : matrices) {
            of_factors[name] = x.factor_gradients(gradients.at(name));
            for (const Array& gradient : of_factors[name]) add_squares(gradient);
        }
        for (auto& [name, x] : dense) add_squares(gradients.at(name));
        grad_norm = std::sqrt(sum);
        const double clip = std::min(1.0, clip_norm / grad_norm);
        AdamWRates now = rates;
        now.lr = dense_lr * lr_factor;
        for (auto& [name, x] : dense) {
            now.weight_decay = x.cols == 1 ? 0 : rates.weight_decay;  // gains of norms do not decay
            x.update(gradients.at(name), clip, now, {});
        }
        now.weight_decay = rates.weight_decay;
        now.lr = rates.lr * lr_factor;
        for (auto& [name, x] : matrices)
            for (int side : {0, 1}) x.factor[side].update(of_factors[name][side], clip, now, {});
    }

    /// draw(name of the matrix) gives the new A; prune(name of the matrix, side, "m" or "v", values).
    template <class Draw, class Prune>
    void restart(const Draw& draw, const Prune& prune) {
        for (auto& [name, x] : matrices) {
            x.w = x.effective();
            const Array a = draw(name, x);
            for (int side : {0, 1}) {
                std::vector<AdamWNumber>& numbers = x.factor[side].numbers;
                for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i].value = side == 0 ? a[i] : 0;
                for (const auto& [moment, member] :
                     {std::pair{"m", &AdamWNumber::m}, std::pair{"v", &AdamWNumber::v}}) {
                    Array values;
                    for (const AdamWNumber& number : numbers) values.push_back(number.*member);
                    values = prune(name, side, moment, values);
                    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i].*member = values[i];
                }
            }
        }
    }
};

/// The factor of update t (from 0) on a schedule S: after a merge, every q updates, the rate rises from 0 on
/// a straight line, in w steps, to the value of S where that ends (the released code's "jagged cosine").
inline double jagged(const std::function<double(std::int64_t)>& schedule, std::int64_t t, std::int64_t q,
                     std::int64_t w) {
    const std::int64_t j = t % q;
    if (t < q || j >= w) return schedule(t);
    return static_cast<double>(j) / static_cast<double>(w) * schedule(t - j + w);
}

}  // namespace switchyard::reference
