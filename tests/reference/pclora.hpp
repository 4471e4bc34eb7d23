// PC-LoRA on one process in plain double arrays, from arXiv 2406.09117: a LLaMA whose linears compute y = x
// (lambda W + s B A)' + C beside its teacher, the model at step 0, on the same tokens; the objective is a
// L_task + (1 - a) mean over linears of mean((y - y_teacher)^2).
#pragma once

#include <map>
#include <string>

#include "reference/attention.hpp"
#include "reference/cross_entropy.hpp"
#include "reference/norm.hpp"
#include "reference/rope.hpp"
#include "reference/swiglu.hpp"
#include "reference/trained_part.hpp"

namespace switchyard::reference {

/// Gradients are zero before a step.
struct CompressedLinear {
    int m, n, r;
    double scale;
    Array w;          // (m, n)
    Trained a, b, c;  // (r, n), B' (r, m), (m, 1)
    Array d_a, d_b, d_c;
    Array x, y, of_teacher, v;  // of the last step; v: the weight that x is multiplied by

    CompressedLinear(int m, int n, int r, double alpha)
        : m(m), n(n), r(r), scale(alpha / r), w(m * n), a(r, n), b(r, m), c(m, 1) {}

    /// The weight that x is multiplied by.
    Array effective(double lambda) {
        Array v(m * n);
        for (int i = 0; i < m * n; ++i) v[i] = lambda * w[i];
        for (int k = 0; k < r; ++k)
            for (int i = 0; i < m; ++i)
                for (int j = 0; j < n; ++j) v[i * n + j] += scale * b.value(k, i) * a.value(k, j);
        return v;
    }
    static Array product(const Array& x, const Array& w, int m, int n) {
        const int rows = static_cast<int>(x.size()) / n;
        Array y(rows * m);
        for (int t = 0; t < rows; ++t)
            for (int i = 0; i < m; ++i) {
                const double *row = x.data() + t * n, *column = w.data() + i * n;
                double sum = 0;
                for (int j = 0; j < n; ++j) sum += row[j] * column[j];
                y[t * m + i] = sum;
            }
        return y;
    }
    Array teach(const Array& x_teacher) { return of_teacher = product(x_teacher, w, m, n); }
    Array forward(const Array& input, double lambda) {
        x = input;
        v = effective(lambda);
        y = product(x, v, m, n);
        for (std::size_t i = 0; i < y.size(); ++i) y[i] += c.numbers[i % m].value;
        return y;
    }
    double distance() const {
        double sum = 0;
        for (std::size_t i = 0; i < y.size(); ++i) sum += (y[i] - of_teacher[i]) * (y[i] - of_teacher[i]);
        return sum / static_cast<double>(y.size());
    }
    /// d_x += the gradient from d_y and from `weight` times distance().
    void backward(Array d_y, double weight, Array& d_x) {
        for (std::size_t i = 0; i < y.size(); ++i)
            d_y[i] += 2 * weight * (y[i] - of_teacher[i]) / static_cast<double>(y.size());
        const int rows = static_cast<int>(y.size()) / m;
        Array g(m * n);  // of the effective weight
        d_c.assign(m, 0);
        for (int t = 0; t < rows; ++t)
            for (int i = 0; i < m; ++i) {
                const double d = d_y[t * m + i], *column = v.data() + i * n, *row = x.data() + t * n;
                double *to_x = d_x.data() + t * n, *to_g = g.data() + i * n;
                d_c[i] += d;
                for (int j = 0; j < n; ++j) {
                    to_x[j] += d * column[j];
                    to_g[j] += d * row[j];
                }
            }
        d_a.assign(r * n, 0), d_b.assign(r * m, 0);
        for (int k = 0; k < r; ++k)
            for (int i = 0; i < m; ++i)
                for (int j = 0; j < n; ++j) {
                    d_a[k * n + j] += scale * b.value(k, i) * g[i * n + j];
                    d_b[k * m + i] += scale * a.value(k, j) * g[i * n + j];
                }
    }
    std::vector<TrainedPart> parts(bool bias) {
        std::vector<TrainedPart> all{{".lora_A", &a, &d_a}, {".lora_B", &b, &d_b, true}};
        if (bias) all.push_back({".lora_bias", &c, &d_c, false, false});
        return all;
    }
};

struct LlamaSizes {
    std::size_t sequences, tokens, hidden, heads, kv_heads;
    int layers;
    double eps, theta;
};

/// Names are those of checkpoints.
class CompressedLlama {
  public:
    LlamaSizes s;
    std::map<std::string, CompressedLinear> linears;
    std::map<std::string, Trained> dense;  // embedding, head, norms
    std::map<std::string, Array> d_dense;
    std::map<std::string, Array> of_teacher;  // embedding and norms of blocks at step 0
    double loss = 0, distance = 0;            // means

    /// Forward and backward for a whole batch.
    void step(const std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& targets,
              double lambda, double task_weight) {
        const double n = static_cast<double>(tokens.size());
        const double of_distance = (1 - task_weight) / static_cast<double>(linears.size());
        teach(tokens);
        const Array embedding = values("model.embed_tokens.weight"), head = values("lm_head.weight"),
                    last = values("model.norm.weight");
        Array x = rows_of(embedding, tokens);
        std::vector<Layer> layers;
        for (int i = 0; i < s.layers; ++i) layers.push_back(forward(i, x, lambda));
        const Norm h = rms_norm(x, last, s.eps);
        const int width = static_cast<int>(s.hidden), vocabulary = static_cast<int>(head.size()) / width;
        const CrossEntropy e =
            cross_entropy(CompressedLinear::product(h.h, head, vocabulary, width), targets, task_weight / n);
        loss = e.loss / n;
        distance = 0;
        for (const auto& [name, linear] : linears)
            distance += linear.distance() / static_cast<double>(linears.size());
        Array d_h(h.h.size()), &d_head = d_dense["lm_head.weight"];
        d_head.assign(head.size(), 0);
        for (std::size_t t = 0; t < tokens.size(); ++t)
            for (int v = 0; v < vocabulary; ++v)
                for (int j = 0; j < width; ++j) {
                    const double d = e.d_logits[t * vocabulary + v];
                    d_h[t * width + j] += d * head[v * width + j];
                    d_head[v * width + j] += d * h.h[t * width + j];
                }
        NormGradient g = rms_norm_gradient(d_h, x, last, h.rstd);
        d_dense["model.norm.weight"] = g.weight;
        Array d_x = g.x;
        for (int i = s.layers - 1; i >= 0; --i) backward(i, layers[i], of_distance, d_x);
        Array& d_embedding = d_dense["model.embed_tokens.weight"];
        d_embedding.assign(embedding.size(), 0);
        for (std::size_t i = 0; i < d_x.size(); ++i)
            d_embedding[tokens[i / s.hidden] * s.hidden + i % s.hidden] += d_x[i];
    }

    Array values(const std::string& name) {
        Array all;
        for (const AdamWNumber& number : dense.at(name).numbers) all.push_back(number.value);
        return all;
    }
    static std::string layer(int i) { return "model.layers." + std::to_string(i); }

  private:
    struct Layer {
        Array x, x_mid, q, k, v, o, gate, up;  // q and k rotated
        Norm h_attention, h_mlp;
        Attention attention;
    };
    CompressedLinear& linear(int i, const std::string& name) { return linears.at(layer(i) + name + "_proj"); }
    Array rows_of(const Array& table, const std::vector<std::int32_t>& tokens) const {
        Array x;
        for (const std::int32_t token : tokens)
            for (std::size_t j = 0; j < s.hidden; ++j) x.push_back(table[token * s.hidden + j]);
        return x;
    }
    Array rotate(const Array& x, std::size_t heads, double direction) const {
        return rope(x, {s.sequences, s.tokens, heads, s.hidden / s.heads}, s.theta, 0, direction);
    }
    Attention attend(const Array& q, const Array& k, const Array& v, const Array& d_o = {}) const {
        return AttentionFormula({s.sequences, s.tokens, s.heads, s.kv_heads, s.hidden / s.heads}, q, k, v, {})
            .run(d_o);
    }
    static Array sum(Array x, const Array& y) {
        for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
        return x;
    }
    static Array gated(const Array& gate, const Array& up) {
        Array a(gate.size());
        for (std::size_t i = 0; i < a.size(); ++i) a[i] = silu(gate[i]) * up[i];
        return a;
    }

    /// The teacher's outputs.
    void teach(const std::vector<std::int32_t>& tokens) {
        Array x = rows_of(of_teacher.at("model.embed_tokens.weight"), tokens);
        for (int i = 0; i < s.layers; ++i) {
            const Array h = rms_norm(x, of_teacher.at(layer(i) + ".input_layernorm.weight"), s.eps).h;
            const Array q = rotate(linear(i, ".self_attn.q").teach(h), s.heads, 1),
                        k = rotate(linear(i, ".self_attn.k").teach(h), s.kv_heads, 1),
                        v = linear(i, ".self_attn.v").teach(h);
            x = sum(x, linear(i, ".self_attn.o").teach(attend(q, k, v).o));
            const Array h_mlp =
                rms_norm(x, of_teacher.at(layer(i) + ".post_attention_layernorm.weight"), s.eps).h;
            const Array gate = linear(i, ".mlp.gate").teach(h_mlp), up = linear(i, ".mlp.up").teach(h_mlp);
            x = sum(x, linear(i, ".mlp.down").teach(gated(gate, up)));
        }
    }
    /// x is the residual stream.
    Layer forward(int i, Array& x, double lambda) {
        Layer l;
        l.x = x;
        l.h_attention = rms_norm(x, values(layer(i) + ".input_layernorm.weight"), s.eps);
        l.q = rotate(linear(i, ".self_attn.q").forward(l.h_attention.h, lambda), s.heads, 1);
        l.k = rotate(linear(i, ".self_attn.k").forward(l.h_attention.h, lambda), s.kv_heads, 1);
        l.v = linear(i, ".self_attn.v").forward(l.h_attention.h, lambda);
        l.o = attend(l.q, l.k, l.v).o;
        l.x_mid = x = sum(x, linear(i, ".self_attn.o").forward(l.o, lambda));
        l.h_mlp = rms_norm(x, values(layer(i) + ".post_attention_layernorm.weight"), s.eps);
        l.gate = linear(i, ".mlp.gate").forward(l.h_mlp.h, lambda);
        l.up = linear(i, ".mlp.up").forward(l.h_mlp.h, lambda);
        x = sum(x, linear(i, ".mlp.down").forward(gated(l.gate, l.up), lambda));
        return l;
    }
    void backward(int i, const Layer& l, double weight, Array& d_x) {
        Array d_a(l.gate.size()), d_gate(l.gate.size()), d_up(l.gate.size()), d_h(l.x.size());
        linear(i, ".mlp.down").backward(d_x, weight, d_a);
        for (std::size_t k = 0; k < d_a.size(); ++k) {
            d_gate[k] = d_a[k] * l.up[k] * silu_slope(l.gate[k]);
            d_up[k] = d_a[k] * silu(l.gate[k]);
        }
        linear(i, ".mlp.gate").backward(d_gate, weight, d_h);
        linear(i, ".mlp.up").backward(d_up, weight, d_h);
        through_norm(layer(i) + ".post_attention_layernorm.weight", d_h, l.x_mid, l.h_mlp, d_x);
        Array d_o(l.o.size()), d_in(l.x.size());
        linear(i, ".self_attn.o").backward(d_x, weight, d_o);
        const Attention g = attend(l.q, l.k, l.v, d_o);
        linear(i, ".self_attn.q").backward(rotate(g.d_q, s.heads, -1), weight, d_in);
        linear(i, ".self_attn.k").backward(rotate(g.d_k, s.kv_heads, -1), weight, d_in);
        linear(i, ".self_attn.v").backward(g.d_v, weight, d_in);
        through_norm(layer(i) + ".input_layernorm.weight", d_in, l.x, l.h_attention, d_x);
    }
    void through_norm(const std::string& name, const Array& d_h, const Array& x, const Norm& norm,
                      Array& d_x) {
        const NormGradient g = rms_norm_gradient(d_h, x, values(name), norm.rstd);
        d_dense[name] = g.weight;
        d_x = sum(d_x, g.x);
    }
};

}  // namespace switchyard::reference
