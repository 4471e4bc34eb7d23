// One pass over master, moments and gradient; arithmetic in the type of the state, bias corrections in f64.
#include "kernels/adamw.hpp"

#include "core/call_counts.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

/// What one row's update needs, rounded from f64.
template <class T>
struct Factors {
    T clip, beta1, one_minus_beta1, beta2, one_minus_beta2;
    T lr, decay, eps;
    T m_correction, v_correction;  // 1 / (1 - beta^step)
};

template <class T>
Factors<T> factors_of(const AdamWSettings& s, double clip, std::int32_t step, bool frozen) {
    const auto as = [](double x) { return static_cast<T>(x); };
    return {as(clip),
            as(s.beta1),
            as(1 - s.beta1),
            as(s.beta2),
            as(1 - s.beta2),
            as(s.lr),
            as(frozen ? 0.0 : s.weight_decay),
            as(s.eps),
            as(1 / (1 - std::pow(s.beta1, step))),
            as(1 / (1 - std::pow(s.beta2, step)))};
}

/// `value` may be `master`.
template <class T, class Value>
void update_block(T* master, T* m, T* v, const T* gradient, Value* value, const Factors<T>& factors,
                  std::int64_t n) {
    const Factors<T> f = factors;
    const auto strip = [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t j = begin; j < end; ++j) {
            const T g = f.clip * gradient[j];
            const T first = f.beta1 * m[j] + f.one_minus_beta1 * g;
            const T second = f.beta2 * v[j] + f.one_minus_beta2 * g * g;
            const T step = first * f.m_correction / (std::sqrt(second * f.v_correction) + f.eps);
            const T updated = master[j] - f.lr * (f.decay * master[j] + step);
            m[j] = first;
            v[j] = second;
            master[j] = updated;
            value[j] = convert<Value>(updated);
        }
    };
    for_strips(n, strip, master, m, v, gradient, value);
}

void check_rows(const AdamWRows& rows) {
    internal_check(rows.master.shape().rank() == 2 && rows.gradient.shape().rank() == 2,
                   "AdamW on {} with gradient {}", rows.master.shape(), rows.gradient.shape());
    const std::int64_t count = rows.master.dim(0), width = rows.master.dim(1);
    for (Tensor moment : {rows.m, rows.v}) check("moment", moment, rows.master.dtype(), rows.master.shape());
    check_dtype("gradient", rows.gradient, rows.master.dtype());
    check_shape("value", rows.value, rows.gradient.shape());
    internal_check(accumulate_type(rows.value.dtype()) == rows.master.dtype(), "value is {}, its master {}",
                   name_of(rows.value.dtype()), name_of(rows.master.dtype()));
    check_dtype("step counters", rows.step, DType::i32);
    internal_check(rows.step.size() == 1 || rows.step.size() == count, "{} step counters for {} rows",
                   rows.step.size(), count);
    if (!rows.frozen.empty()) check("frozen rows", rows.frozen, DType::i32, {count});
    check("rows of the gradient", rows.gradient_rows, DType::i32, {count});
    internal_check(rows.column >= 0 && rows.column + width <= rows.gradient.dim(1),
                   "columns [{}, {}) of gradient {}", rows.column, rows.column + width,
                   rows.gradient.shape());
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int32_t row = rows.gradient_rows.data<std::int32_t>()[i];
        internal_check(row >= 0 && row < rows.gradient.dim(0), "row {} of gradient {}", row,
                       rows.gradient.shape());
    }
}

template <class T, class Value>
void update(const AdamWRows& rows, const AdamWSettings& settings, double clip) {
    const std::int64_t width = rows.master.dim(1), stride = rows.gradient.dim(1);
    const auto* step = rows.step.data<std::int32_t>();
    const auto* frozen = rows.frozen.empty() ? nullptr : rows.frozen.data<std::int32_t>();
    const auto* gradient_rows = rows.gradient_rows.data<std::int32_t>();
    const bool one_step = rows.step.size() == 1;
    const Factors<T> common[2] = {factors_of<T>(settings, clip, step[0], false),
                                  factors_of<T>(settings, clip, step[0], true)};
    for_row_blocks(rows.master.dim(0), width,
                   [&, step, frozen](std::int64_t i, std::int64_t begin, std::int64_t end) {
                       const bool is_frozen = frozen && frozen[i] != 0;
                       const Factors<T> factors =
                           one_step ? common[is_frozen] : factors_of<T>(settings, clip, step[i], is_frozen);
                       const std::int64_t local = i * width + begin,
                                          there = gradient_rows[i] * stride + rows.column + begin;
                       update_block(rows.master.data<T>() + local, rows.m.data<T>() + local,
                                    rows.v.data<T>() + local, rows.gradient.data<T>() + there,
                                    rows.value.data<Value>() + there, factors, end - begin);
                   });
}

}  // namespace

void adamw(const AdamWRows& rows, const AdamWSettings& settings, Tensor clip) {
    count_kernel(__func__);
    check("clip", clip, DType::f64, {2});
    if (clip.data<double>()[1] == 0) return;
    for (std::int64_t i = 0; i < rows.step.size(); ++i) ++rows.step.data<std::int32_t>()[i];
    if (rows.master.empty()) return;
    check_rows(rows);
    const double coefficient = clip.data<double>()[0];
    dispatch(rows.value.dtype(),
             [&]<class Value>() { update<Wide<Value>, Value>(rows, settings, coefficient); });
}

}  // namespace switchyard::kernels
