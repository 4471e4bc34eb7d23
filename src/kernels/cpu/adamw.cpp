// One pass over master, moments and gradient; arithmetic in the type of the state, bias corrections in f64.
#include "kernels/adamw.hpp"

#include <vector>

#include "core/calls.hpp"
#include "kernels/cpu/adamw_factors.hpp"
#include "kernels/cpu/row_items.hpp"

namespace switchyard::kernels {
namespace {

/// `value` may be `master`. A separate function, because compilers make the same loop a tenth slower inside
/// the loop over rows.
template <class T, class Value>
[[gnu::noinline]] void update_block(T* master, T* m, T* v, const T* gradient, Value* value,
                                    const Factors<T>& factors, std::int64_t n) {
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

/// The same without a master: `value` gets the direction.
template <class T, class Value>
[[gnu::noinline]] void direct_block(T* m, T* v, const T* gradient, Value* value, const Factors<T>& factors,
                                    std::int64_t n) {
    const Factors<T> f = factors;
    const auto strip = [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t j = begin; j < end; ++j) {
            const T g = f.clip * gradient[j];
            const T first = f.beta1 * m[j] + f.one_minus_beta1 * g;
            const T second = f.beta2 * v[j] + f.one_minus_beta2 * g * g;
            m[j] = first;
            v[j] = second;
            value[j] = convert<Value>(first * f.m_correction / (std::sqrt(second * f.v_correction) + f.eps));
        }
    };
    for_strips(n, strip, m, v, gradient, value);
}

/// One parameter and the addresses of its tensors.
struct Job {
    const AdamWRows* rows = nullptr;
    RowPlaces gradient, value;
    double clip = 1;
    std::int64_t width =
        0;               // of a row of the loop: all elements where they are treated alike and lie together
    Corrections common;  // with one step counter
};

template <class T, class Value>
void update_row(const Job& job, std::int64_t row, std::int64_t begin, std::int64_t end) {
    const AdamWRows& rows = *job.rows;
    const bool one_step = rows.step.size() == 1;
    const Corrections correction =
        one_step ? job.common : corrections(rows.settings, rows.step.data<std::int32_t>()[row]);
    const bool frozen = !rows.frozen.empty() && rows.frozen.data<std::int32_t>()[row] != 0;
    const std::int64_t local = row * job.width + begin;
    T *m = rows.m.data<T>() + local, *v = rows.v.data<T>() + local;
    const T* gradient = job.gradient.at<T>(row, begin);
    auto* value = job.value.at<Value>(row, begin);
    const auto factors = factors_of<T>(rows.settings, job.clip, correction, frozen);
    if (rows.master.empty()) return direct_block(m, v, gradient, value, factors, end - begin);
    update_block(rows.master.data<T>() + local, m, v, gradient, value, factors, end - begin);
}

void update(std::span<const AdamWRows> parameters, Tensor clip, bool with_master) {
    check("clip", clip, DType::f64, {2});
    if (clip.data<double>()[1] == 0) return;
    std::vector<Job> jobs;
    std::vector<const AdamWRows*> coded;
    RowItems items;
    for (const AdamWRows& rows : parameters) {
        for (std::int64_t i = 0; i < rows.step.size(); ++i) ++rows.step.data<std::int32_t>()[i];
        if (rows.m.empty()) continue;
        check_rows(rows, with_master);
        const std::int64_t width = rows.m.dim(1), elements = rows.m.size();
        const RowPart gradient = part_of(rows, rows.gradient), value = part_of(rows, rows.value);
        check_entries(gradient);
        if (rows.coded()) {
            coded.push_back(&rows);
            continue;
        }
        const bool one_step = rows.step.size() == 1;
        const bool long_row = one_step && rows.frozen.empty() && is_contiguous(gradient);
        jobs.push_back(
            {&rows, RowPlaces(gradient), RowPlaces(value), clip.data<double>()[0],
             long_row ? elements : width,
             one_step ? corrections(rows.settings, *rows.step.data<std::int32_t>()) : Corrections{}});
        items.add(long_row ? 1 : elements / width, long_row ? elements : width);
    }
    items.for_blocks([&jobs](std::size_t item, std::int64_t row, std::int64_t begin, std::int64_t end) {
        dispatch(jobs[item].rows->value.dtype(),
                 [&]<class Value>() { update_row<Wide<Value>, Value>(jobs[item], row, begin, end); });
    });
    update_coded(coded, clip.data<double>()[0]);
}

}  // namespace

void adamw(std::span<const AdamWRows> parameters, Tensor clip) {
    count_kernel(__func__);
    update(parameters, clip, true);
}

void adam_direction(std::span<const AdamWRows> parameters, Tensor clip) {
    count_kernel(__func__);
    update(parameters, clip, false);
}

void clip_coefficient(Tensor squared_norm, Tensor loss, double limit, Tensor clip) {
    count_kernel(__func__);
    check("squared norm", squared_norm, DType::f64, {1});
    check("clip", clip, DType::f64, {2});
    const double square = *squared_norm.data<double>(), norm = std::sqrt(square);
    clip.data<double>()[0] = limit > 0 && norm > limit ? limit / norm : 1.0;
    if (!loss.empty()) check("loss", loss, DType::f64, {1});
    const bool finite = std::isfinite(square) && (loss.empty() || std::isfinite(*loss.data<double>()));
    clip.data<double>()[1] = finite ? 1.0 : 0.0;
}

}  // namespace switchyard::kernels
