// A row is read from memory once: its sum of squares is taken, and it is read again from cache. The gradient
// of the weight is summed per group of rows and the groups are added in order; groups depend on N alone, not
// on the number of threads.
#include "kernels/norm.hpp"

#include <algorithm>

#include "core/calls.hpp"
#include "kernels/checks/model.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels {
namespace {

template <class T>
Wide<T> inverse_rms(const T* x, std::int64_t n, double eps) {
    const auto sum = sum_over<Wide<T>>(n, [=](std::int64_t j, Wide<T> sum) {
        const Wide<T> value = load(x[j]);
        return multiply_add(value, value, sum);
    });
    return static_cast<Wide<T>>(1.0 / std::sqrt(static_cast<double>(sum) / static_cast<double>(n) + eps));
}

template <class T>
void scale_row(const T* x, const T* weight, Wide<T> rstd, T* h, std::int64_t n) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) h[j] = convert<T>(load(x[j]) * rstd * load(weight[j]));
}

template <class T>
void add_row(const T* x, const T* y, T* sum, std::int64_t n) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) sum[j] = convert<T>(load(x[j]) + load(y[j]));
}

/// d_weight += d_h x rstd; returns sum d_h weight x.
template <class T>
Wide<T> reduce_row(const T* d_h, const T* x, const T* weight, Wide<T> rstd, Wide<T>* d_weight,
                   std::int64_t n) {
    return sum_over<Wide<T>>(n, [=](std::int64_t j, Wide<T> dot) {
        const Wide<T> product = load(d_h[j]) * load(x[j]);
        d_weight[j] = multiply_add(product, rstd, d_weight[j]);
        return multiply_add(product, static_cast<Wide<T>>(load(weight[j])), dot);
    });
}

/// d_x += rstd (weight d_h - x shared), shared = rstd^2 mean(weight d_h x).
template <class T>
void gradient_row(const T* d_h, const T* x, const T* weight, Wide<T> rstd, Wide<T> shared, T* d_x,
                  std::int64_t n) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
        const Wide<T> inner = load(weight[j]) * load(d_h[j]) - load(x[j]) * shared;
        d_x[j] = convert<T>(multiply_add(rstd, inner, static_cast<Wide<T>>(load(d_x[j]))));
    }
}

/// Rows of a group, whose part of the weight's gradient is summed separately.
std::int64_t group_rows_of(std::int64_t rows) {
    constexpr std::int64_t max_groups = 64, min_group_rows = 32;
    return std::max(min_group_rows, (rows + max_groups - 1) / max_groups);
}

}  // namespace

void rms_norm_forward(Tensor x, Tensor weight, Tensor h, Tensor rstd, double eps) {
    count_kernel(__func__);
    const auto [rows, width] = check_norm(x, weight, h, rstd);
    if (x.empty()) return;
    dispatch(x.dtype(), [&, rows = rows, width = width]<class T>() {
        for_rows(rows, width, [=](std::int64_t i) {
            const T* from = x.data<T>() + i * width;
            prefetch(from + width, width);
            const Wide<T> factor = inverse_rms(from, width, eps);
            scale_row(from, weight.data<T>(), factor, h.data<T>() + i * width, width);
            rstd.data<Wide<T>>()[i] = factor;
        });
    });
}

void add_rms_norm_forward(Tensor x, Tensor y, Tensor weight, Tensor sum, Tensor h, Tensor rstd, double eps) {
    count_kernel(__func__);
    const auto [rows, width] = check_norm(x, weight, h, rstd);
    check("addend of a norm", y, x.dtype(), x.shape());
    check("sum of a norm", sum, x.dtype(), x.shape());
    if (x.empty()) return;
    dispatch(x.dtype(), [&, rows = rows, width = width]<class T>() {
        for_rows(rows, width, [=](std::int64_t i) {
            T* added = sum.data<T>() + i * width;
            prefetch(x.data<T>() + (i + 1) * width, width);
            prefetch(y.data<T>() + (i + 1) * width, width);
            add_row(x.data<T>() + i * width, y.data<T>() + i * width, added, width);
            const Wide<T> factor = inverse_rms(added, width, eps);
            scale_row(added, weight.data<T>(), factor, h.data<T>() + i * width, width);
            rstd.data<Wide<T>>()[i] = factor;
        });
    });
}

std::size_t rms_norm_scratch_bytes(std::int64_t rows, std::int64_t width, DType compute) {
    const std::int64_t group_rows = group_rows_of(rows), groups = (rows + group_rows - 1) / group_rows;
    return static_cast<std::size_t>(groups * width) * size_of(accumulate_type(compute));
}

void rms_norm_backward(Tensor d_h, Tensor x, Tensor weight, Tensor rstd, Tensor d_x, Tensor d_weight,
                       Tensor scratch) {
    count_kernel(__func__);
    const auto [rows, width] = check_norm(x, weight, d_h, rstd);
    check("gradient of a norm's input", d_x, x.dtype(), x.shape());
    check("gradient of a norm's weight", d_weight, accumulate_type(x.dtype()), {width});
    if (x.empty()) return;
    check_scratch("norm", scratch, rms_norm_scratch_bytes(rows, width, x.dtype()));
    const std::int64_t group_rows = group_rows_of(rows), groups = (rows + group_rows - 1) / group_rows;
    dispatch(x.dtype(), [&, rows = rows, width = width]<class T>() {
        using Sum = Wide<T>;
        Sum* const partial = scratch.data<Sum>();
        for_rows(groups, group_rows * width, [=](std::int64_t group) {
            Sum* d_weight_part = partial + group * width;
            std::fill_n(d_weight_part, width, Sum(0));
            for (std::int64_t i = group * group_rows; i < std::min(rows, (group + 1) * group_rows); ++i) {
                const T *gradient = d_h.data<T>() + i * width, *input = x.data<T>() + i * width;
                const Sum factor = rstd.data<Sum>()[i];
                prefetch(gradient + width, width);
                prefetch(input + width, width);
                const Sum dot = reduce_row(gradient, input, weight.data<T>(), factor, d_weight_part, width);
                gradient_row(gradient, input, weight.data<T>(), factor,
                             factor * factor * dot / static_cast<Sum>(width), d_x.data<T>() + i * width,
                             width);
            }
        });
        for (std::int64_t group = 0; group < groups; ++group)
            for (std::int64_t j = 0; j < width; ++j) d_weight.data<Sum>()[j] += partial[group * width + j];
    });
}

}  // namespace switchyard::kernels
