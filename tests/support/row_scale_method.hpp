// A method for tests only. Products run on W_eff = g o (W + s B A) with one factor per row,
//     g_i = magnitude_i / (1 + |A|^2) (1 + step / 64) (1 + gain / 128):
// a vector that is trained in f32 in every compute type, a value derived from weights (a sum over tp where A
// is cut), one derived from the step, and a number in the method's own state. g is constant within a step: no
// gradient goes through its denominator. The method has a learning rate of its own and refuses one command.
#pragma once

#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/registry.hpp"
#include "support/tensors.hpp"

namespace switchyard::testing {

inline constexpr const char* row_scale_name = "row_scale_of_a_test";
inline constexpr double row_scale_lr = 7e-3;

inline double row_scale_of(double magnitude, double squared_norm_a, std::int64_t step, std::int64_t gain) {
    return magnitude / (1 + squared_norm_a) * (1 + static_cast<double>(step) / 64) *
           (1 + static_cast<double>(gain) / 128);
}

inline test::Values numbers(Tensor tensor) {
    const test::HostTensor wide(DType::f64, tensor.shape());
    kernels::copy(tensor, wide);
    return wide.values();
}

class RowScaleAdapter : public LowRankAdapter {
  public:
    RowScaleAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank, double scale)
        : LowRankAdapter(context, linear, low_rank, scale) {
        const Extent& out = linear.out();
        const DType wide = context.accumulate();
        magnitude_.shard = {linear.name() + ".magnitude", {out.size}, out.begin, 0, out.count, 1, 0};
        magnitude_.value = context.arena.take(MemoryClass::trainable, wide, {out.padded});
        magnitude_.gradient = context.arena.take(MemoryClass::gradients, wide, {out.padded});
        magnitude_.tp_gradient = linear.split() == Split::column ? TpGradient::own : TpGradient::partial;
        row_scale_ = context.arena.take(MemoryClass::workspace, wide, {out.padded});
    }

    bool merged() const override { return true; }
    std::optional<kernels::EffectiveWeight> effective_weight() override {
        auto effective = LowRankAdapter::effective_weight();
        effective->row_scale = row_scale_;
        return effective;
    }
    Cost cost(const Linear& linear) const override {
        Cost cost = LowRankAdapter::cost(linear);
        const double mn = static_cast<double>(linear.out().size) * static_cast<double>(linear.in().size);
        cost.backward += 2 * mn;  // the gradient of W_eff
        cost.step = 2 * mn;       // its rows times those of W_eff
        return cost;
    }
    std::vector<Parameter*> parameters() override { return {&a(), &b(), &magnitude_}; }
    Parameter& magnitude() { return magnitude_; }
    Tensor row_scale() const { return row_scale_; }

    /// From dW = d_y' x: dA = s (g o B)' dW, dB = s g o dW A', dmagnitude_i = <dW_i, W_eff_i> / magnitude_i.
    void backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) override {
        kernels::matmul({.a = d_y, .b = linear.weight(), .c = d_x, .accumulate = write == Write::accumulate});
        const std::int64_t tokens = x.dim(0), n = x.dim(1), m = d_y.dim(1), r = low_rank();
        const test::Values xs = numbers(x), ds = numbers(d_y), w = numbers(linear.weight()),
                           as = numbers(a().value), bs = numbers(b().value), g = numbers(row_scale_),
                           magnitude = numbers(magnitude_.value);
        test::Values d_a(r * n), d_b(r * m), d_magnitude(m), row(n);
        for (std::int64_t i = 0; i < m; ++i) {
            std::fill(row.begin(), row.end(), 0.0);
            for (std::int64_t t = 0; t < tokens; ++t)
                for (std::int64_t j = 0; j < n; ++j) row[j] += ds[t * m + i] * xs[t * n + j];
            for (std::int64_t j = 0; j < n; ++j)
                if (magnitude[i] != 0) d_magnitude[i] += row[j] * w[i * n + j] / magnitude[i];
            for (std::int64_t slot = 0; slot < r; ++slot)
                for (std::int64_t j = 0; j < n; ++j) {
                    d_a[slot * n + j] += scale() * g[i] * bs[slot * m + i] * row[j];
                    d_b[slot * m + i] += scale() * g[i] * as[slot * n + j] * row[j];
                }
        }
        const auto add = [](Parameter& p, const test::Values& values) {
            kernels::add(test::HostTensor(DType::f64, p.gradient.shape(), values), p.gradient);
        };
        add(a(), d_a);
        add(b(), d_b);
        add(magnitude_, d_magnitude);
    }

  private:
    Parameter magnitude_;
    Tensor row_scale_;
};

class RowScaleMethod : public LowRankMethod {
  public:
    void initialise(const ModelContext& context) override {
        initialise_plain(context);
        gain_ = 0;
        for (const Adapted& x : adapted_)  // g = 1 at step 0
            kernels::fill(of(x).magnitude().value, 1 + squared_norm_a(context, x));
    }
    void weights_changed(const ModelContext& context, std::int64_t step) override {
        for (const Adapted& x : adapted_) {
            const double norm = squared_norm_a(context, x);
            kernels::zero(of(x).row_scale());
            kernels::add(of(x).magnitude().value, of(x).row_scale(), row_scale_of(1, norm, step, gain_));
        }
    }
    void visit_function(StateIo& io) override {
        std::vector<std::int64_t> table{gain_};
        io.integers("/method/gain", table, world_rank_);
        gain_ = table[0];
    }
    MethodReport after_gather(Optimizer&, std::int64_t step) override {
        gain_ += step % 2;
        MethodReport report;
        report.objective.emplace_back("gain", static_cast<double>(gain_));
        return report;
    }
    std::optional<Refusal> refusal(Use use) const override {
        if (use != Use::export_adapters) return std::nullopt;
        return Refusal{"an adapter has no place for its row scale", "leave --adapters out"};
    }

  protected:
    std::unique_ptr<LowRankAdapter> make_adapter(const ModelContext& context, const Linear& linear) override {
        world_rank_ = context.topology.world.rank();
        return std::make_unique<RowScaleAdapter>(context, linear, low_rank(context), scale(context));
    }

  private:
    static RowScaleAdapter& of(const Adapted& x) { return static_cast<RowScaleAdapter&>(*x.adapter); }
    static double squared_norm_a(const ModelContext& context, const Adapted& x) {
        double mine = 0;
        for (double value : numbers(x.adapter->a().value)) mine += value * value;
        return x.linear->split() == Split::row ? all_reduce_sum(context.topology.tp, mine) : mine;
    }

    std::int64_t gain_ = 0;
    int world_rank_ = 0;
};

/// Puts the method into the registry; further calls have no effect.
inline void register_row_scale_method() {
    static const bool once = [] {
        add_method({.options = {.name = row_scale_name,
                                .help = "one factor a row",
                                .options = {rank_option(), alpha_option("8")},
                                .lr = row_scale_lr},
                    .create = [](const Config&) -> std::unique_ptr<Method> {
                        return std::make_unique<RowScaleMethod>();
                    },
                    .resolve = resolve_low_rank,
                    .check = check_low_rank});
        return true;
    }();
    (void)once;
}

}  // namespace switchyard::testing
