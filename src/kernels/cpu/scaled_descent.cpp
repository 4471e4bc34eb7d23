// One pass over master, gradient and value; a row's factor is formed in f64 and rounded to the master's type.
#include "kernels/scaled_descent.hpp"

#include <vector>

#include "core/calls.hpp"
#include "kernels/checks/descent.hpp"
#include "kernels/cpu/row_items.hpp"

namespace switchyard::kernels {
namespace {

/// master -= step * gradient + decay * master. `value` may be `master`.
template <class T, class Value>
[[gnu::noinline]] void descend(T* master, const T* gradient, Value* value, T step, T decay, std::int64_t n) {
    const auto strip = [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t j = begin; j < end; ++j) {
            const T updated = master[j] - (step * gradient[j] + decay * master[j]);
            master[j] = updated;
            value[j] = convert<Value>(updated);
        }
    };
    for_strips(n, strip, master, gradient, value);
}

template <class T, class Value>
void descend_row(const ScaledRows& s, std::int64_t row, std::int64_t begin, std::int64_t end) {
    const double scale = s.scale.empty() ? 1 : static_cast<double>(s.scale.data<T>()[row]);
    const std::int64_t width = s.master.dim(1), at = row * width + begin,
                       there = (s.rows.first + row) * width + begin;
    descend(s.master.data<T>() + at, s.gradient.data<T>() + there, s.value.data<Value>() + there,
            static_cast<T>(s.lr * s.alpha * *s.factor.data<double>() * scale),
            static_cast<T>(s.lr * s.weight_decay), end - begin);
}

}  // namespace

void scaled_descent(std::span<const ScaledRows> parameters, Tensor clip) {
    count_kernel(__func__);
    check("clip", clip, DType::f64, {2});
    if (clip.data<double>()[1] == 0) return;
    RowItems items;
    for (const ScaledRows& rows : parameters) {
        check_rows(rows);
        items.add(rows.master.dim(0), rows.master.dim(1));
    }
    items.for_blocks([&](std::size_t item, std::int64_t row, std::int64_t begin, std::int64_t end) {
        dispatch(parameters[item].value.dtype(),
                 [&]<class Value>() { descend_row<Wide<Value>, Value>(parameters[item], row, begin, end); });
    });
}

void limit_growth(Tensor squares, double growth, Tensor clip, Tensor previous, Tensor factors) {
    count_kernel(__func__);
    check_growth(squares, clip, previous, factors);
    if (clip.data<double>()[1] == 0) return;
    for (std::int64_t i = 0; i < squares.size(); ++i) {
        double& before = previous.data<double>()[i];
        const double norm = std::sqrt(squares.data<double>()[i]), limit = growth * before;
        factors.data<double>()[i] = limit > 0 && norm > limit ? limit / norm : 1;
        before = limit > 0 && norm > limit ? limit : norm;
    }
}

}  // namespace switchyard::kernels
