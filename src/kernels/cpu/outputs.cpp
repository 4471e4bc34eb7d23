// A row is one thread's work; sums of rows are added in order.
#include "kernels/outputs.hpp"

#include <vector>

#include "core/calls.hpp"
#include "kernels/checks/outputs.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

template <class T>
void add_bias(T* y, const Wide<T>* bias, std::int64_t n) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) y[j] = convert<T>(load(y[j]) + bias[j]);
}

/// teacher <- scale (y - teacher); returns the sum of squares of y - teacher.
template <class T>
double subtract(const T* y, T* teacher, std::int64_t n, Wide<T> scale) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < n; ++j) {
        const Wide<T> difference = load(y[j]) - load(teacher[j]);
        sum += static_cast<double>(difference) * static_cast<double>(difference);
        teacher[j] = convert<T>(scale * difference);
    }
    return sum;
}

}  // namespace

void finish_output(const FinishedOutput& o) {
    count_kernel(__func__);
    check_output(o);
    if (o.y.empty()) return;
    const std::int64_t rows = o.y.dim(0), width = o.y.dim(1);
    std::vector<double> of_row(o.teacher.empty() ? 0 : static_cast<std::size_t>(rows));
    dispatch(o.y.dtype(), [&]<class T>() {
        for_rows(rows, width, [&](std::int64_t row) {
            T* const y = o.y.data<T>() + row * width;
            if (!o.bias.empty()) add_bias(y, o.bias.data<Wide<T>>(), width);
            if (o.teacher.empty()) return;
            of_row[static_cast<std::size_t>(row)] =
                subtract(y, o.teacher.data<T>() + row * width, width, static_cast<Wide<T>>(o.scale));
        });
    });
    double sum = 0;
    for (const double x : of_row) sum += x;
    if (!o.sum.empty()) *o.sum.data<double>() += o.weight * sum;
}

}  // namespace switchyard::kernels
