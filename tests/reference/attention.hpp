// Causal grouped-query attention and its gradient by their formulas, with each head's whole matrix of
// weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace switchyard::reference {

struct AttentionSizes {
    std::size_t batch, tokens, heads, kv_heads, size;
};

struct Attention {
    std::vector<double> o, lse;         // (B, T, H, D), (B, H, T)
    std::vector<double> d_q, d_k, d_v;  // like q, k, v; with a gradient of o only
};

/// Query t of sequence b sees keys first[b * T + t] ... t (0 ... t where `first` is empty).
class AttentionFormula {
  public:
    using Values = std::vector<double>;
    AttentionFormula(AttentionSizes sizes, const Values& q, const Values& k, const Values& v,
                     const std::vector<std::int32_t>& first)
        : s_(sizes), q_(q), k_(k), v_(v), first_(first) {}

    Attention run(const Values& d_o = {}) const {
        Attention out;
        out.o.resize(q_.size());
        out.lse.resize(s_.batch * s_.heads * s_.tokens);
        if (!d_o.empty()) {
            out.d_q.resize(q_.size());
            out.d_k.resize(k_.size());
            out.d_v.resize(v_.size());
        }
        for (std::size_t b = 0; b < s_.batch; ++b)
            for (std::size_t h = 0; h < s_.heads; ++h)
                for (std::size_t t = 0; t < s_.tokens; ++t) query(b, h, t, d_o, out);
        return out;
    }

  private:
    std::size_t q_at(std::size_t b, std::size_t t, std::size_t h) const {
        return ((b * s_.tokens + t) * s_.heads + h) * s_.size;
    }
    std::size_t k_at(std::size_t b, std::size_t t, std::size_t h) const {
        return ((b * s_.tokens + t) * s_.kv_heads + h / (s_.heads / s_.kv_heads)) * s_.size;
    }
    double dot(const Values& x, std::size_t at, const Values& y, std::size_t other) const {
        double sum = 0;
        for (std::size_t j = 0; j < s_.size; ++j) sum += x[at + j] * y[other + j];
        return sum;
    }

    void query(std::size_t b, std::size_t h, std::size_t t, const Values& d_o, Attention& out) const {
        const double scale = 1 / std::sqrt(static_cast<double>(s_.size));
        const std::size_t begin = first_.empty() ? 0 : static_cast<std::size_t>(first_[b * s_.tokens + t]);
        Values p;
        for (std::size_t u = begin; u <= t; ++u)
            p.push_back(scale * dot(q_, q_at(b, t, h), k_, k_at(b, u, h)));
        const double top = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (double score : p) sum += std::exp(score - top);
        const double lse = top + std::log(sum);
        out.lse[(b * s_.heads + h) * s_.tokens + t] = lse;
        for (std::size_t u = begin; u <= t; ++u) {
            p[u - begin] = std::exp(p[u - begin] - lse);
            for (std::size_t j = 0; j < s_.size; ++j)
                out.o[q_at(b, t, h) + j] += p[u - begin] * v_[k_at(b, u, h) + j];
        }
        if (!d_o.empty()) gradient(b, h, t, begin, p, d_o, out);
    }

    /// d score_u = p_u (d p_u - sum over w of p_w d p_w) with d p_u = d_o . v_u.
    void gradient(std::size_t b, std::size_t h, std::size_t t, std::size_t begin, const Values& p,
                  const Values& d_o, Attention& out) const {
        const double scale = 1 / std::sqrt(static_cast<double>(s_.size));
        const std::size_t q = q_at(b, t, h);
        Values d_p;
        double mean = 0;
        for (std::size_t u = begin; u <= t; ++u) {
            d_p.push_back(dot(d_o, q, v_, k_at(b, u, h)));
            mean += p[u - begin] * d_p.back();
        }
        for (std::size_t u = begin; u <= t; ++u) {
            const std::size_t k = k_at(b, u, h);
            const double d_score = scale * p[u - begin] * (d_p[u - begin] - mean);
            for (std::size_t j = 0; j < s_.size; ++j) {
                out.d_q[q + j] += d_score * k_[k + j];
                out.d_k[k + j] += d_score * q_[q + j];
                out.d_v[k + j] += p[u - begin] * d_o[q + j];
            }
        }
    }

    AttentionSizes s_;
    const Values &q_, &k_, &v_;
    const std::vector<std::int32_t>& first_;
};

}  // namespace switchyard::reference
