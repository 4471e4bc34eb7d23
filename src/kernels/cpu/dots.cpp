// A column or row is summed by one thread, so the bits do not depend on their number.
#include "kernels/dots.hpp"

#include "core/calls.hpp"
#include "kernels/checks/dots.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

void add_to(Tensor out, std::int64_t i, double value) {
    with_vector(out, [=]<class Out>(Out* to) { to[i] = static_cast<Out>(double{to[i]} + value); });
}

constexpr std::int64_t strip = 64;

/// sums[j] += a[j] b[j]
template <class A, class B>
void add_products(const A* a, const B* b, std::int64_t n, double* sums) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j)
        sums[j] += static_cast<double>(load(a[j])) * static_cast<double>(load(b[j]));
}

/// sums[j] += a[j]
template <class A>
void add_elements(const A* a, std::int64_t n, double* sums) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) sums[j] += static_cast<double>(load(a[j]));
}

/// out (width) += scale * sums over `rows` rows; add_row(row, first column, columns, sums) adds a row's part.
template <class AddRow>
void add_columns(std::int64_t rows, std::int64_t width, double scale, Tensor out, const AddRow& add_row) {
    for_rows((width + strip - 1) / strip, rows * strip, [&](std::int64_t s) {
        const std::int64_t begin = s * strip, count = std::min(strip, width - begin);
        double sums[strip] = {};
        for (std::int64_t row = 0; row < rows; ++row) add_row(row, begin, count, sums);
        for (std::int64_t j = 0; j < count; ++j) add_to(out, begin + j, scale * sums[j]);
    });
}

template <class A, class B>
double dot(const A* a, const B* b, std::int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < n; ++j)
        sum += static_cast<double>(load(a[j])) * static_cast<double>(load(b[j]));
    return sum;
}

double square_of_words(const FrozenWeight& row) {
    const bf16* hi = row.hi.data<bf16>();
    const auto* lo = row.lo.data<std::int16_t>();
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < row.hi.size(); ++j) {
        const std::uint32_t high = static_cast<std::uint32_t>(hi[j].bits) << 16;
        const auto value = static_cast<double>(
            std::bit_cast<float>(high + static_cast<std::uint32_t>(static_cast<std::int32_t>(lo[j]))));
        sum += value * value;
    }
    return sum;
}

}  // namespace

void add_column_dots(Tensor a, Tensor b, double scale, Tensor out) {
    count_kernel(__func__);
    check_dots(a, b, out, 1);
    if (a.empty()) return;
    dispatch_both(a, b, [&]<class A, class B>() {
        const std::int64_t width = a.dim(1);
        add_columns(a.dim(0), width, scale, out, [&](std::int64_t row, auto begin, auto count, double* sums) {
            add_products(a.data<A>() + row * width + begin, b.data<B>() + row * width + begin, count, sums);
        });
    });
}

void add_column_sums(Tensor a, double scale, Tensor out) {
    count_kernel(__func__);
    check_dots(a, a, out, 1);
    if (a.empty()) return;
    dispatch(a.dtype(), [&]<class A>() {
        const std::int64_t width = a.dim(1);
        add_columns(a.dim(0), width, scale, out, [&](std::int64_t row, auto begin, auto count, double* sums) {
            add_elements(a.data<A>() + row * width + begin, count, sums);
        });
    });
}

void add_row_dots(Tensor a, Tensor b, double scale, Tensor out) {
    count_kernel(__func__);
    check_dots(a, b, out, 0);
    if (a.empty()) return;
    dispatch_both(a, b, [&]<class A, class B>() {
        const std::int64_t width = a.dim(1);
        for_rows(a.dim(0), width, [&](std::int64_t row) {
            add_to(out, row, scale * dot(a.data<A>() + row * width, b.data<B>() + row * width, width));
        });
    });
}

void row_squared_norms(FrozenWeight w, Tensor out) {
    count_kernel(__func__);
    check_squared_norms(w, out);
    if (w.hi.empty()) return;
    const std::int64_t width = w.hi.dim(1);
    with_vector(out, [&]<class Out>(Out* to) {
        for_rows(w.hi.dim(0), width, [&](std::int64_t row) {
            const auto* x = w.hi.data<Out>() + (is_split(w) ? 0 : row * width);
            to[row] = static_cast<Out>(is_split(w) ? square_of_words(w.rows(row, 1)) : dot(x, x, width));
        });
    });
}

}  // namespace switchyard::kernels
