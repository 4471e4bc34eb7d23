// Attention and its gradient, each query with the whole row of its weights.
#include <algorithm>
#include <cmath>

#include "kernels/attention.hpp"
#include "selftest/kernel_checks.hpp"

namespace switchyard::selftest {
namespace {

constexpr std::int64_t num_sequences = 2, seq_len = 37, heads = 4, kv_heads = 2, head_size = 16;

std::size_t query_at(std::int64_t b, std::int64_t t, std::int64_t h) {
    return static_cast<std::size_t>(((b * seq_len + t) * heads + h) * head_size);
}
std::size_t key_at(std::int64_t b, std::int64_t t, std::int64_t h) {
    return static_cast<std::size_t>(((b * seq_len + t) * kv_heads + h / (heads / kv_heads)) * head_size);
}
double dot(const double* x, const double* y) {
    double sum = 0;
    for (std::int64_t i = 0; i < head_size; ++i) sum += x[i] * y[i];
    return sum;
}
void add(double factor, const double* x, double* to) {
    for (std::int64_t i = 0; i < head_size; ++i) to[i] += factor * x[i];
}

struct Expected {
    Values o, lse, d_q, d_k, d_v;
};

/// p_u = exp(s q k_u - lse); d score_u = p_u (d_o v_u - sum over w of p_w d_o v_w).
void add_query(std::int64_t b, std::int64_t t, std::int64_t h, const Values& q, const Values& k,
               const Values& v, const Values& d_o, Expected& to) {
    const double scale = 1 / std::sqrt(static_cast<double>(head_size));
    const std::size_t at = query_at(b, t, h);
    Values p, d_p;
    for (std::int64_t u = 0; u <= t; ++u) {
        p.push_back(scale * dot(&q[at], &k[key_at(b, u, h)]));
        d_p.push_back(dot(&d_o[at], &v[key_at(b, u, h)]));
    }
    const double largest = *std::max_element(p.begin(), p.end());
    double sum = 0, mean = 0;
    for (double score : p) sum += std::exp(score - largest);
    const double lse = to.lse[static_cast<std::size_t>((b * heads + h) * seq_len + t)] =
        largest + std::log(sum);
    for (std::size_t u = 0; u < p.size(); ++u) {
        p[u] = std::exp(p[u] - lse);
        mean += p[u] * d_p[u];
    }
    for (std::int64_t u = 0; u <= t; ++u) {
        const double weight = p[static_cast<std::size_t>(u)];
        const double d_score = scale * weight * (d_p[static_cast<std::size_t>(u)] - mean);
        const std::size_t key = key_at(b, u, h);
        add(weight, &v[key], &to.o[at]);
        add(d_score, &k[key], &to.d_q[at]);
        add(d_score, &q[at], &to.d_k[key]);
        add(weight, &d_o[at], &to.d_v[key]);
    }
}

}  // namespace

std::vector<Comparison> check_attention(DType compute) {
    Operands operands;
    const DType wide = accumulate_type(compute);
    const Shape queries{num_sequences, seq_len, heads, head_size},
        keys{num_sequences, seq_len, kv_heads, head_size}, sums{num_sequences, heads, seq_len};
    const Tensor q = operands.normal(compute, queries, "q"), k = operands.normal(compute, keys, "k"),
                 v = operands.normal(compute, keys, "v"), d_o = operands.normal(compute, queries, "d_o");
    const Tensor o = operands.output(compute, queries), lse = operands.output(wide, sums),
                 d_q = operands.output(compute, queries), d_k = operands.output(compute, keys),
                 d_v = operands.output(compute, keys),
                 scratch = operands.scratch(kernels::attention_scratch_bytes(queries, keys, compute));
    kernels::attention_forward(q, k, v, {}, o, lse, scratch);
    kernels::attention_backward({.d_o = d_o,
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .o = o,
                                 .lse = lse,
                                 .first_key = {},
                                 .d_q = d_q,
                                 .d_k = d_k,
                                 .d_v = d_v,
                                 .scratch = scratch});

    const Values host_q = values_of(q), host_k = values_of(k), host_v = values_of(v),
                 host_d_o = values_of(d_o);
    Expected expected;
    expected.o.resize(host_q.size());
    expected.d_q = expected.o;
    expected.d_k.resize(host_k.size());
    expected.d_v = expected.d_k;
    expected.lse.resize(static_cast<std::size_t>(sums.size()));
    for (std::int64_t b = 0; b < num_sequences; ++b)
        for (std::int64_t t = 0; t < seq_len; ++t)
            for (std::int64_t h = 0; h < heads; ++h)
                add_query(b, t, h, host_q, host_k, host_v, host_d_o, expected);
    // A weight is a product over the head, a result a sum over all keys of one head (two queries of each in
    // d_k, d_v).
    const double allowed = tolerance(compute, 2, 2 * seq_len + head_size);
    return {{"o", values_of(o), expected.o, allowed},
            {"log of sums", values_of(lse), expected.lse, tolerance(wide, 2, 2 * seq_len + head_size)},
            {"d_q", values_of(d_q), expected.d_q, allowed},
            {"d_k", values_of(d_k), expected.d_k, allowed},
            {"d_v", values_of(d_v), expected.d_v, allowed}};
}

}  // namespace switchyard::selftest
