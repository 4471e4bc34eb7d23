// SwitchLoRA on one process in plain double arrays: algorithms 1 and 2 of arXiv 2406.06564 in the order clip,
// mask the frozen, update, switch (A before B). It knows nothing of ranks or of the program; the gradients of
// the effective weights and of the dense parameters are arguments.
#pragma once

#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <string>

#include "reference/adamw.hpp"
#include "reference/switch_ring.hpp"

namespace switchyard::reference {

using Array = std::vector<double>;

/// Rows of numbers updated by AdamW, each row with its own step counter.
struct Trained {
    int rows = 0, cols = 0;
    std::vector<AdamWNumber> numbers;
    std::vector<int> steps;

    Trained() = default;
    Trained(int rows, int cols) : rows(rows), cols(cols), numbers(rows * cols), steps(rows, 0) {}
    double& value(int i, int j) { return numbers[i * cols + j].value; }
    void reset_moments(int i) {
        for (int j = 0; j < cols; ++j) numbers[i * cols + j].m = numbers[i * cols + j].v = 0;
        steps[i] = 0;
    }
    /// Frozen rows get no gradient and no decay; their counters go on.
    void update(const Array& gradient, double clip, AdamWRates rates, const std::vector<int>& frozen) {
        const double decay = rates.weight_decay;
        for (int i = 0; i < rows; ++i) {
            const bool fixed = !frozen.empty() && frozen[i] > 0;
            rates.weight_decay = fixed ? 0 : decay;
            ++steps[i];
            for (int j = i * cols; j < (i + 1) * cols; ++j)
                adamw(numbers[j], fixed ? 0 : clip * gradient[j], steps[i], rates);
        }
    }
};

/// y = (W + s B A) x with W (m, n); B is kept transposed, so that a slot is a row of both factors.
struct SwitchedMatrix {
    int m, n;
    double scale;
    SwitchRing ring;
    Array w;            // (m, n)
    Trained factor[2];  // A (r, n), B' (r, m)
    Array bank[2];      // (C, n), (C, m)

    SwitchedMatrix(int m, int n, int r, double alpha, int freeze_steps)
        : m(m), n(n), scale(alpha / r), ring(r, std::min(m, n), freeze_steps), w(m * n) {
        for (int side : {0, 1}) {
            factor[side] = Trained(r, side == 0 ? n : m);
            bank[side].resize(ring.c * factor[side].cols);
        }
    }
    /// Makes the selected candidates A and B, and subtracts s B A from W, so that the map stays what W alone
    /// was.
    void start() {
        for (int side : {0, 1})
            for (int slot = 0; slot < ring.r; ++slot)
                for (int j = 0; j < factor[side].cols; ++j)
                    factor[side].value(slot, j) =
                        bank[side][ring.selected[side][slot] * factor[side].cols + j];
        for (int slot = 0; slot < ring.r; ++slot) add_pair(slot, -1);
    }
    /// W += sign s b a' of a slot.
    void add_pair(int slot, double sign) {
        for (int i = 0; i < m; ++i)
            for (int j = 0; j < n; ++j)
                w[i * n + j] += sign * scale * factor[1].value(slot, i) * factor[0].value(slot, j);
    }
    Array effective() {
        const Array stored = w;
        for (int slot = 0; slot < ring.r; ++slot) add_pair(slot, 1);
        Array sum = stored;
        std::swap(sum, w);
        return sum;
    }
    /// d A = s B' G and d B' = s A G' from G = d W_eff (m, n).
    void factor_gradients(const Array& g, std::array<Array, 2>& gradient) {
        for (int side : {0, 1}) gradient[side].assign(ring.r * factor[side].cols, 0.0);
        for (int slot = 0; slot < ring.r; ++slot)
            for (int i = 0; i < m; ++i)
                for (int j = 0; j < n; ++j) {
                    gradient[0][slot * n + j] += scale * factor[1].value(slot, i) * g[i * n + j];
                    gradient[1][slot * m + i] += scale * factor[0].value(slot, j) * g[i * n + j];
                }
    }
    /// Algorithm 1 for each change: W absorbs the pair, the vectors are swapped, the new pair is subtracted
    /// from W, and the counterpart's state is reset.
    void switch_vectors(const SwitchRing::Changes& changes) {
        for (int side : {0, 1})
            for (const SlotChange& x : changes[side]) {
                add_pair(x.slot, 1);
                for (int j = 0; j < factor[side].cols; ++j) {
                    bank[side][x.outgoing * factor[side].cols + j] = factor[side].value(x.slot, j);
                    factor[side].value(x.slot, j) = bank[side][x.incoming * factor[side].cols + j];
                }
                add_pair(x.slot, -1);
                factor[1 - side].reset_moments(x.slot);
            }
    }
};

struct SwitchLoraRun {
    std::map<std::string, SwitchedMatrix> matrices;
    std::map<std::string, Trained> dense;
    AdamWRates rates{};  // lr: the peak, of factors
    double dense_lr = 0, clip_norm = 0, grad_norm = 0;

    using Choose = std::function<void(const std::string&, SwitchRing&, SwitchRing::Changes&)>;

    /// One step from the gradients of the effective weights and the dense parameters. `choose` decides what a
    /// matrix switches after it, and applies that to its tables.
    void step(const std::map<std::string, Array>& gradients, double lr_factor, const Choose& choose) {
        std::map<std::string, std::array<Array, 2>> of_factors;
        double sum = 0;
        const auto add_squares = [&](const Array& values) {
            for (double x : values) sum += x * x;
        };
        for (auto& [name, x] : matrices) {
            x.factor_gradients(gradients.at(name), of_factors[name]);
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
        for (auto& [name, x] : matrices) {
            for (int side : {0, 1})
                x.factor[side].update(of_factors[name][side], clip, now, x.ring.frozen[side]);
            x.ring.count_down();
            SwitchRing::Changes changes;
            choose(name, x.ring, changes);
            x.switch_vectors(changes);
        }
    }
};

}  // namespace switchyard::reference
