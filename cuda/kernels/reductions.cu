// Norms and maxima of tensors are reductions in two launches (reduce.cuh); what a step does with their few
// results is done by single threads in the order that the contract gives.
#include <limits>

#include "core/calls.hpp"
#include "cuda/kernels/reduce.cuh"
#include "kernels/elementwise.hpp"
#include "kernels/reductions.hpp"

namespace switchyard::kernels {
namespace {

/// The bits of |x| as f64. As integers they are ordered like magnitudes, with infinity above all numbers and
/// NaN above infinity.
struct Magnitude {
    using Value = std::uint64_t;
    using Result = double;
    __device__ static Value start() { return 0; }
    template <class T>
    __device__ static Value add(Value largest, T x, std::int64_t) {
        const auto bits = std::bit_cast<std::uint64_t>(static_cast<double>(wide(x))) & 0x7FFFFFFFFFFFFFFFull;
        return combine(largest, bits);
    }
    __device__ static Value combine(Value a, Value b) { return a > b ? a : b; }
    __device__ static Result result(Value largest) { return std::bit_cast<double>(largest); }
    template <class F>
    __device__ static void with_type(DType dtype, const F& f) {
        with_number(dtype, f);
    }
};

/// By one thread, in order of i.
__global__ void sum_weighted(const double* values, const double* weights, std::int64_t n, double* result) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += weights[i] * values[i];
    *result = sum;
}

/// Thread j for column j of parts (num_parts, width).
__global__ void combine_columns(const double* parts, std::int64_t num_parts, std::int64_t width, bool sum,
                                double* result) {
    const std::int64_t j = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (j >= width) return;
    double combined = parts[j];
    for (std::int64_t p = 1; p < num_parts; ++p) {
        const double part = parts[p * width + j];
        if (sum)
            combined += part;
        else if (isnan(part) || part > combined)
            combined = part;
    }
    result[j] = combined;
}

__device__ double larger_or_first(double a, double b) {
    return a < b ? b : a;
}

__global__ void form_ratios(const double* x, double* ratios) {
    const double effective = larger_or_first(x[0], std::numeric_limits<double>::min());
    const double stored = larger_or_first(larger_or_first(0.0, x[2]), x[3]);
    ratios[0] = x[1] / effective;
    ratios[1] = x[1] / larger_or_first(effective, stored);
}

}  // namespace

void squared_norm(Tensor x, Tensor result) {
    check("result of a reduction", result, DType::f64, {1});
    const RowPart row = one_row(x);
    squared_norms({&row, 1}, result);
}

void max_abs(Tensor x, Tensor result) {
    count_kernel(__func__);
    check("result of a reduction", result, DType::f64, {1});
    const RowPart row = one_row(x);
    if (!x.empty()) check_numbers(x);
    reduce<Magnitude>({&row, 1}, result.data<double>());
}

void weighted_sum(Tensor values, Tensor weights, Tensor result) {
    count_kernel(__func__);
    check("values", values, DType::f64, {values.size()});
    check("weights", weights, DType::f64, {values.size()});
    check("result of a reduction", result, DType::f64, {1});
    cuda::launch({1, 1}, sum_weighted, values.data<double>(), weights.data<double>(), values.size(),
                 result.data<double>());
}

void combine_parts(Tensor parts, Combine how, Tensor result) {
    count_kernel(__func__);
    check_combined(parts, result);
    const std::int64_t width = parts.dim(1);
    const int threads = block_threads(std::max<std::int64_t>(width, 1));
    cuda::launch({cuda::ceil_div(width, threads), threads}, combine_columns, parts.data<double>(),
                 parts.dim(0), width, how == Combine::sum, result.data<double>());
}

void change_ratios(Tensor numbers, Tensor ratios) {
    count_kernel(__func__);
    check("numbers of a change", numbers, DType::f64, {4});
    check("ratios of a change", ratios, DType::f64, {2});
    cuda::launch({1, 1}, form_ratios, numbers.data<double>(), ratios.data<double>());
}

}  // namespace switchyard::kernels
