// Results are computed from blocks of fixed length, added in order.
#include "kernels/reductions.hpp"

#include <limits>
#include <vector>

#include "core/calls.hpp"
#include "kernels/checks/rows.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "kernels/rows.hpp"

namespace switchyard::kernels {
namespace {

/// Bit pattern of |x| (bf16 as f32). As integers these patterns are ordered like magnitudes, with infinity
/// above all numbers and NaN above infinity.
template <class T>
auto magnitude_bits(T x) {
    using Bits = std::conditional_t<std::is_same_v<T, double>, std::int64_t, std::int32_t>;
    return static_cast<Bits>(std::bit_cast<Bits>(load(x)) & std::numeric_limits<Bits>::max());
}

template <class T>
auto max_magnitude(const T* x, std::int64_t n) {
    decltype(magnitude_bits(T{})) largest = 0;
#pragma omp simd reduction(max : largest)
    for (std::int64_t i = 0; i < n; ++i) {
        const auto bits = magnitude_bits(x[i]);
        largest = bits > largest ? bits : largest;
    }
    return std::bit_cast<Wide<T>>(largest);
}

/// The only number in `result`.
double& scalar(Tensor result) {
    check("result of a reduction", result, DType::f64, {1});
    return *result.data<double>();
}

}  // namespace

void squared_norm(Tensor x, Tensor result) {
    scalar(result) = 0;
    if (x.empty()) return;
    const RowPart row = whole_rows(x.reshape({1, x.size()}));
    squared_norms({&row, 1}, result);
}

void max_abs(Tensor x, Tensor result) {
    count_kernel(__func__);
    scalar(result) = 0;
    if (x.empty()) return;
    dispatch(x.dtype(), [&]<class T>() {
        const T* from = x.data<T>();
        std::vector<Wide<T>> parts(static_cast<std::size_t>(num_blocks(x.size())));
        for_blocks(x.size(), [&parts, from](std::int64_t begin, std::int64_t end) {
            parts[static_cast<std::size_t>(begin / block_size)] = max_magnitude(from + begin, end - begin);
        });
        scalar(result) = max_magnitude(parts.data(), static_cast<std::int64_t>(parts.size()));
    });
}

void weighted_sum(Tensor values, Tensor weights, Tensor result) {
    count_kernel(__func__);
    check("values", values, DType::f64, {values.size()});
    check("weights", weights, DType::f64, {values.size()});
    double sum = 0;
    for (std::int64_t i = 0; i < values.size(); ++i)
        sum += weights.data<double>()[i] * values.data<double>()[i];
    scalar(result) = sum;
}

void combine_parts(Tensor parts, Combine how, Tensor result) {
    count_kernel(__func__);
    check_combined(parts, result);
    const std::int64_t width = parts.dim(1);
    for (std::int64_t j = 0; j < width; ++j) {
        double combined = parts.data<double>()[j];
        for (std::int64_t p = 1; p < parts.dim(0); ++p) {
            const double part = parts.data<double>()[p * width + j];
            if (how == Combine::sum)
                combined += part;
            else if (std::isnan(part) || part > combined)
                combined = part;
        }
        result.data<double>()[j] = combined;
    }
}

void change_ratios(Tensor numbers, Tensor ratios) {
    count_kernel(__func__);
    check("numbers of a change", numbers, DType::f64, {4});
    check("ratios of a change", ratios, DType::f64, {2});
    const double* x = numbers.data<double>();
    const double effective = std::max(x[0], std::numeric_limits<double>::min());
    const double stored = std::max(std::max(0.0, x[2]), x[3]);
    ratios.data<double>()[0] = x[1] / effective;
    ratios.data<double>()[1] = x[1] / std::max(effective, stored);
}

}  // namespace switchyard::kernels
