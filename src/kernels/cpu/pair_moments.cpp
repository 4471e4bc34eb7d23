// A thread takes a row: its matrix is unpacked into f64 on the stack. Inner loops run along rows of at most
// 32 numbers.
#include "kernels/pair_moments.hpp"

#include "core/calls.hpp"
#include "kernels/checks/pair_moments.hpp"
#include "kernels/cpu/row_items.hpp"

namespace switchyard::kernels {
namespace {

constexpr std::int64_t most = most_pair_rank;

/// f.operator()<T>() with the type of x, f32 or f64.
template <class F>
void with_wide(Tensor x, const F& f) {
    if (x.dtype() == DType::f64) return f.template operator()<double>();
    f.template operator()<float>();
}

/// to[i] += factor * from[i]
void add_scaled(double factor, const double* from, double* to, std::int64_t n) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) to[i] += factor * from[i];
}

/// The matrix (r, r) of packed pairs.
template <class T>
void unpack(const T* pairs, std::int64_t r, double* full) {
    for (std::int64_t a = 0; a < r; ++a)
        for (std::int64_t b = 0; b <= a; ++b)
            full[a * r + b] = full[b * r + a] = static_cast<double>(*pairs++);
}

/// m and P of a row.
template <class T>
void advance_row(T* m, T* pairs, const T* gradient, const double* map, std::int64_t r, double clip,
                 const PairMoments& p) {
    double second[most * most], half[most * most], sums[most], g[most];
    const double new_1 = 1 - p.beta1, new_2 = 1 - p.beta2;
    for (std::int64_t a = 0; a < r; ++a) g[a] = clip * static_cast<double>(gradient[a]), sums[a] = 0;
    for (std::int64_t k = 0; k < r; ++k) add_scaled(static_cast<double>(m[k]), map + k * r, sums, r);
    for (std::int64_t a = 0; a < r; ++a) m[a] = static_cast<T>(p.beta1 * sums[a] + new_1 * g[a]);
    unpack(pairs, r, second);
    std::fill_n(half, r * r, 0.0);
    for (std::int64_t a = 0; a < r; ++a)  // half = P T
        for (std::int64_t k = 0; k < r; ++k) add_scaled(second[a * r + k], map + k * r, half + a * r, r);
    for (std::int64_t a = 0; a < r; ++a) {  // row a of T' half
        std::fill_n(sums, a + 1, 0.0);
        for (std::int64_t k = 0; k < r; ++k) add_scaled(map[k * r + a], half + k * r, sums, a + 1);
        for (std::int64_t b = 0; b <= a; ++b)
            *pairs++ = static_cast<T>(p.beta2 * sums[b] + new_2 * g[a] * g[b]);
    }
}

}  // namespace

void advance_pair_moments(std::span<const PairMoments> parameters, Tensor clip) {
    count_kernel(__func__);
    check("clip", clip, DType::f64, {2});
    if (clip.data<double>()[1] == 0) return;
    RowItems items;
    std::vector<RowPlaces> gradients;
    for (const PairMoments& p : parameters) {
        check_pair_moments(p);
        check_entries(p.gradient);
        const std::int32_t step = ++*p.step.data<std::int32_t>();
        p.corrections.data<double>()[0] = 1 / (1 - std::pow(p.beta1, step));
        p.corrections.data<double>()[1] = 1 / (1 - std::pow(p.beta2, step));
        gradients.emplace_back(p.gradient);
        items.add(p.m.dim(0), p.v.dim(1));  // a row of pairs is less than a block
    }
    static_assert(num_pairs(most) <= block_size);
    items.for_blocks([&](std::size_t item, std::int64_t row, std::int64_t, std::int64_t) {
        const PairMoments& p = parameters[item];
        const std::int64_t r = p.m.dim(1);
        with_wide(p.m, [&]<class T>() {
            advance_row(p.m.data<T>() + row * r, p.v.data<T>() + row * num_pairs(r),
                        gradients[item].at<const T>(row, 0), p.map.data<double>(), r, clip.data<double>()[0],
                        p);
        });
    });
}

void pair_products(Tensor rows, Tensor pairs) {
    count_kernel(__func__);
    check_pair_products(rows, pairs);
    const std::int64_t r = rows.dim(1), width = pairs.dim(1);
    with_wide(rows, [&]<class T>() {
        for_rows(rows.dim(0), width, [&](std::int64_t row) {
            const T* q = rows.data<T>() + row * r;
            T* to = pairs.data<T>() + row * width;
            for (std::int64_t a = 0; a < r; ++a) {
                const T twice = 2 * q[a];
                for (std::int64_t b = 0; b < a; ++b) *to++ = twice * q[b];
                *to++ = q[a] * q[a];
            }
        });
    });
}

void pair_direction(Tensor first, Tensor second, Tensor corrections, double eps) {
    count_kernel(__func__);
    check_pair_direction(first, second, corrections);
    with_wide(first, [&]<class T>() {
        const T c1 = static_cast<T>(corrections.data<double>()[0]),
                c2 = static_cast<T>(corrections.data<double>()[1]), small = static_cast<T>(eps);
        T* x = first.data<T>();
        const T* v = second.data<T>();
        for_blocks(first.size(), [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
            for (std::int64_t i = begin; i < end; ++i) {
                const T square = v[i] < 0 ? T{0} : v[i] * c2;  // NaN stays
                x[i] = x[i] * c1 / (std::sqrt(square) + small);
            }
        });
    });
}

}  // namespace switchyard::kernels
