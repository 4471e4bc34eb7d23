// The optimizer's update, rows that are copied, and random numbers, which must be the host's bit for bit; and
// the list of all checks.
#include <cmath>

#include "core/rng.hpp"
#include "kernels/adamw.hpp"
#include "kernels/random.hpp"
#include "kernels/rows.hpp"
#include "selftest/kernel_checks.hpp"

namespace switchyard::selftest {

std::vector<Comparison> check_adamw(DType compute) {
    Operands operands;
    constexpr std::int64_t rows = 7, width = 45, first = 2, num_steps = 3;
    const double clip = 0.375;
    const kernels::AdamWSettings s{.lr = 0.1, .weight_decay = 0.05};
    const DType wide = accumulate_type(compute);
    const Tensor master = operands.normal(wide, {rows, width}, "master"),
                 m = operands.zeros(wide, {rows, width}), v = operands.zeros(wide, {rows, width}),
                 step = operands.zeros(DType::i32, {1}),
                 gradient = operands.normal(wide, {first + rows, width}, "gradient"),
                 value = operands.zeros(compute, {first + rows, width}),
                 clip_tensor = operands.zeros(DType::f64, {2});
    set_values(clip_tensor, {clip, 1});
    Values p = values_of(master), host_m(p.size()), host_v(p.size()), g = values_of(gradient);
    g.erase(g.begin(), g.begin() + first * width);
    const kernels::AdamWRows update{
        master, m, v, step, {}, gradient, value, kernels::Rows::range(first, rows), 0, s};
    for (int t = 1; t <= num_steps; ++t) {
        kernels::adamw({&update, 1}, clip_tensor);
        for (std::size_t i = 0; i < p.size(); ++i) {
            host_m[i] = s.beta1 * host_m[i] + (1 - s.beta1) * clip * g[i];
            host_v[i] = s.beta2 * host_v[i] + (1 - s.beta2) * clip * g[i] * clip * g[i];
            const double m_hat = host_m[i] / (1 - std::pow(s.beta1, t)),
                         v_hat = host_v[i] / (1 - std::pow(s.beta2, t));
            p[i] -= s.lr * (s.weight_decay * p[i] + m_hat / (std::sqrt(v_hat) + s.eps));
        }
    }
    Values copies(static_cast<std::size_t>(first * width));
    for (double x : values_of(master)) copies.push_back(rounded(compute, x));
    return {{"master", values_of(master), p, tolerance(wide, 4, num_steps)},
            {"m", values_of(m), host_m, tolerance(wide, 4, num_steps)},
            {"v", values_of(v), host_v, tolerance(wide, 4, num_steps)},
            {"value", values_of(value), copies, 0}};
}

std::vector<Comparison> check_rows(DType compute) {
    Operands operands;
    constexpr std::int64_t width = 45, column = 3, part = 40;
    const DType wide = accumulate_type(compute);
    const std::vector<std::int32_t> chosen{6, 0, 3};
    const Tensor from = operands.normal(wide, {7, width}, "from"),
                 minus = operands.normal(wide, {7, width}, "minus"),
                 to = operands.normal(compute, {9, width}, "to"), list = operands.integers({3}, chosen);
    const Values host_from = values_of(from), host_minus = values_of(minus);
    Values expected = values_of(to);
    const auto rows_of = [&](Tensor tensor, const kernels::Rows& rows) {
        return kernels::RowPart{tensor, rows, column, part};
    };
    const kernels::Rows listed = kernels::Rows::listed(list);
    kernels::RowBatch batch;
    batch.copy(rows_of(from, listed), rows_of(to, kernels::Rows::range(0, 3)));
    batch.subtract(rows_of(from, listed), rows_of(minus, listed), rows_of(to, kernels::Rows::range(3, 3)));
    batch.zero(rows_of(to, kernels::Rows::range(6, 2)));
    batch.run();
    for (std::size_t row = 0; row < 8; ++row)
        for (std::size_t j = column; j < column + part; ++j) {
            double& x = expected[row * width + j];
            x = 0;
            if (row >= 6) continue;
            const std::size_t source = static_cast<std::size_t>(chosen[row % 3]) * width + j;
            // Differences are formed in accumulate_type of `to` and rounded from there.
            x = rounded(compute,
                        row < 3 ? host_from[source] : rounded(wide, host_from[source] - host_minus[source]));
        }
    return {{"rows", values_of(to), expected, 0}};
}

std::vector<Comparison> check_random(DType compute) {
    Operands operands;
    constexpr std::int64_t rows = 9, columns = 37;
    const kernels::Region region{
        .global_cols = 1001, .row0 = 5, .col0 = 7, .valid_rows = 8, .valid_cols = 35};
    const std::uint64_t key = stream_key(3, "selftest");
    const double std = 0.02, bound = 0.125;
    const Tensor normals = operands.output(compute, {rows, columns}),
                 uniforms = operands.output(compute, {rows, columns});
    kernels::fill_normal(normals, region, key, std);
    kernels::fill_uniform(uniforms, region, key, bound);
    Values expected_normals, expected_uniforms;
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < columns; ++j) {
            const bool valid = i < region.valid_rows && j < region.valid_cols;
            const auto index =
                static_cast<std::uint64_t>((region.row0 + i) * region.global_cols + region.col0 + j);
            expected_normals.push_back(valid ? rounded(compute, std * normal(key, index)) : 0);
            expected_uniforms.push_back(valid ? rounded(compute, bound * (2 * uniform(key, index) - 1)) : 0);
        }
    return {{"normal", values_of(normals), expected_normals, 0},
            {"uniform", values_of(uniforms), expected_uniforms, 0}};
}

std::span<const KernelCheck> kernel_checks() {
    static constexpr KernelCheck all[] = {
        {"matmul", check_matmul}, {"attention", check_attention}, {"rms_norm", check_rms_norm},
        {"swiglu", check_swiglu}, {"rope", check_rope},           {"cross_entropy", check_cross_entropy},
        {"merge", check_merge},   {"adamw", check_adamw},         {"rows", check_rows},
        {"random", check_random}};
    return all;
}

}  // namespace switchyard::selftest
