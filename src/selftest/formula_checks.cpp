// RMSNorm, SwiGLU, rotary embedding and cross-entropy, with their gradients.
#include <algorithm>
#include <cmath>

#include "core/rng.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/norm.hpp"
#include "kernels/rope.hpp"
#include "kernels/swiglu.hpp"
#include "selftest/kernel_checks.hpp"

namespace switchyard::selftest {

std::vector<Comparison> check_rms_norm(DType compute) {
    Operands operands;
    constexpr std::size_t rows = 33, width = 72;
    const double eps = 1e-6;
    const DType wide = accumulate_type(compute);
    const Shape shape{rows, width};
    const Tensor x = operands.normal(compute, shape, "x"),
                 weight = operands.normal(compute, {width}, "weight"),
                 d_h = operands.normal(compute, shape, "d_h"), d_x = operands.normal(compute, shape, "d_x"),
                 d_weight = operands.normal(wide, {width}, "d_weight"), h = operands.output(compute, shape),
                 rstd = operands.output(wide, {rows});
    Values expected_h(rows * width), expected_rstd(rows), expected_x = values_of(d_x),
                                                          expected_weight = values_of(d_weight);
    kernels::rms_norm_forward(x, weight, h, rstd, eps);
    kernels::rms_norm_backward(d_h, x, weight, rstd, d_x, d_weight,
                               operands.scratch(kernels::rms_norm_scratch_bytes(rows, width, compute)));

    const Values host_x = values_of(x), host_weight = values_of(weight), host_d_h = values_of(d_h);
    for (std::size_t i = 0; i < rows; ++i) {
        double squares = 0, along = 0;  // along: sum of d_h weight x
        for (std::size_t at = i * width; at < (i + 1) * width; ++at) {
            squares += host_x[at] * host_x[at];
            along += host_d_h[at] * host_weight[at % width] * host_x[at];
        }
        const double r = expected_rstd[i] = 1 / std::sqrt(squares / static_cast<double>(width) + eps);
        for (std::size_t at = i * width; at < (i + 1) * width; ++at) {
            const std::size_t j = at % width;
            expected_h[at] = host_x[at] * r * host_weight[j];
            expected_x[at] +=
                r * (host_d_h[at] * host_weight[j] - host_x[at] * r * r * along / static_cast<double>(width));
            expected_weight[j] += host_d_h[at] * host_x[at] * r;
        }
    }
    return {{"h", values_of(h), expected_h, tolerance(compute, 2, width)},
            {"1 / rms", values_of(rstd), expected_rstd, tolerance(wide, 2, width)},
            {"d_x", values_of(d_x), expected_x, tolerance(compute, 2, width)},
            {"d_weight", values_of(d_weight), expected_weight, tolerance(wide, 2, rows)}};
}

std::vector<Comparison> check_swiglu(DType compute) {
    Operands operands;
    const Shape shape{33, 45};
    const Tensor gate = operands.normal(compute, shape, "gate", 2),
                 up = operands.normal(compute, shape, "up"), d_a = operands.normal(compute, shape, "d_a"),
                 a = operands.output(compute, shape), d_gate = operands.output(compute, shape),
                 d_up = operands.output(compute, shape);
    kernels::swiglu_forward(gate, up, a);
    kernels::swiglu_backward(d_a, gate, up, d_gate, d_up, {});

    const Values host_gate = values_of(gate), host_up = values_of(up), host_d_a = values_of(d_a);
    Values expected_a, expected_gate, expected_up;
    for (std::size_t i = 0; i < host_gate.size(); ++i) {
        const double g = host_gate[i], logistic = 1 / (1 + std::exp(-g)), silu = g * logistic;
        expected_a.push_back(silu * host_up[i]);
        expected_up.push_back(host_d_a[i] * silu);
        expected_gate.push_back(host_d_a[i] * host_up[i] * (logistic + silu * (1 - logistic)));
    }
    // Exponential, division and products.
    return {{"a", values_of(a), expected_a, tolerance(compute, 4)},
            {"d_gate", values_of(d_gate), expected_gate, tolerance(compute, 4)},
            {"d_up", values_of(d_up), expected_up, tolerance(compute, 4)}};
}

std::vector<Comparison> check_rope(DType compute) {
    Operands operands;
    constexpr std::size_t num_sequences = 2, seq_len = 19, heads = 3, size = 16, half = size / 2;
    const double theta = 10000;
    const DType wide = accumulate_type(compute);
    const Tensor x = operands.normal(compute, {num_sequences, seq_len, heads, size}, "x"),
                 table = operands.output(wide, {seq_len, 2, half});
    Values expected = values_of(x);
    for (std::size_t head = 0; head < num_sequences * seq_len * heads; ++head)
        for (std::size_t i = 0; i < half; ++i) {
            const double position = static_cast<double>(head / heads % seq_len);
            const double angle = position * std::pow(theta, -2.0 * static_cast<double>(i) / size);
            double &low = expected[head * size + i], &high = expected[head * size + half + i];
            const double rotated = low * std::cos(angle) - high * std::sin(angle);
            high = high * std::cos(angle) + low * std::sin(angle);
            low = rotated;
        }
    kernels::rope_table(table, theta);
    kernels::rope(x, table, kernels::Rotation::forward);
    return {{"rotated", values_of(x), expected, tolerance(compute, 2, 2)}};
}

std::vector<Comparison> check_cross_entropy(DType compute) {
    Operands operands;
    constexpr std::size_t n = 24, vocab = 101, padded = 112;
    const double scale = 0.25;
    const DType wide = accumulate_type(compute);
    std::vector<std::int32_t> targets;
    for (std::size_t i = 0; i < n; ++i)
        targets.push_back(i % 4 == 1 ? -1 : static_cast<std::int32_t>(uniform_below(1, i, vocab)));
    const Tensor logits = operands.normal(compute, {padded, n}, "logits", 3),
                 target = operands.integers({n}, targets), stats = operands.output(wide, {1, 3, n}),
                 lse = operands.output(wide, {n}), loss = operands.zeros(DType::f64, {1});
    const Values host = values_of(logits);
    const kernels::VocabRange range{0, vocab};
    kernels::softmax_statistics(logits, target, range, stats.reshape({3, n}));
    kernels::combine_statistics(stats, target, lse, loss);
    kernels::cross_entropy_backward(logits, lse, target, range, scale);

    Values expected_lse, expected_loss(1), expected(padded * n);
    for (std::size_t i = 0; i < n; ++i) {
        double largest = host[i], sum = 0;
        for (std::size_t v = 0; v < vocab; ++v) largest = std::max(largest, host[v * n + i]);
        for (std::size_t v = 0; v < vocab; ++v) sum += std::exp(host[v * n + i] - largest);
        expected_lse.push_back(largest + std::log(sum));
        if (targets[i] < 0) continue;
        const auto chosen = static_cast<std::size_t>(targets[i]);
        expected_loss[0] += expected_lse[i] - host[chosen * n + i];
        for (std::size_t v = 0; v < vocab; ++v)
            expected[v * n + i] =
                scale * (std::exp(host[v * n + i] - expected_lse[i]) - (v == chosen ? 1 : 0));
    }
    // The log of sums is up to about 10, so its rounding alone is 10 eps of each exponential.
    return {{"log of sums", values_of(lse), expected_lse, tolerance(wide, 2, vocab)},
            {"loss", values_of(loss), expected_loss, tolerance(wide, 4, vocab)},
            {"d_logits", values_of(logits), expected, tolerance(compute, 20)}};
}

}  // namespace switchyard::selftest
