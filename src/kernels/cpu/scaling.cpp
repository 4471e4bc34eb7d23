// Each element by itself.
#include "kernels/scaling.hpp"

#include "core/calls.hpp"
#include "kernels/checks/dots.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

/// Where row `row` of a rectangle of a range of rows begins.
template <class T>
T* row_of(const RowPart& part, std::int64_t row) {
    return part.matrix.data<T>() + (part.rows.first + row) * part.matrix.dim(1) + part.column;
}

template <class From, class Factor, class To>
void scale_row(const From* from, const Factor* factors, To* to, std::int64_t n, const ColumnScaling& s) {
    for (std::int64_t j = 0; j < n; ++j) {
        const double product = s.scale * static_cast<double>(factors[j]) * convert<double>(from[j]);
        to[j] = convert<To>(s.accumulate ? convert<double>(to[j]) + product : product);
    }
}

template <class T>
void scale_block(T* x, std::int64_t n, Wide<T> factor) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) x[i] = convert<T>(factor * load(x[i]));
}

}  // namespace

void scale_columns(const ColumnScaling& s) {
    count_kernel(__func__);
    check_scaling(s.from, s.factors, s.to.width, s.to);
    dispatch(s.from.matrix.dtype(), [&]<class From>() {
        dispatch(s.to.matrix.dtype(), [&]<class To>() {
            with_vector(s.factors, [&](const auto* factors) {
                for_rows(s.to.rows.count, s.to.width, [&](std::int64_t row) {
                    scale_row(row_of<From>(s.from, row), factors, row_of<To>(s.to, row), s.to.width, s);
                });
            });
        });
    });
}

void scale_rows(Tensor x, Tensor factors) {
    count_kernel(__func__);
    check_vector("factors of rows", factors, x.dim(0));
    dispatch(x.dtype(), [&]<class T>() {
        with_vector(factors, [&](const auto* factor) {
            for_rows(x.dim(0), x.dim(1), [&](std::int64_t row) {
                T* values = x.data<T>() + row * x.dim(1);
                for (std::int64_t j = 0; j < x.dim(1); ++j)
                    values[j] = convert<T>(static_cast<double>(factor[row]) * convert<double>(values[j]));
            });
        });
    });
}

void divide(Tensor a, Tensor b, Tensor out) {
    count_kernel(__func__);
    check_quotient(a, b, out);
    with_vector(out, [&]<class T>(T* to) {
        const T *x = a.data<T>(), *y = b.data<T>();
        for (std::int64_t i = 0; i < a.size(); ++i) to[i] = y[i] == 0 ? T{0} : x[i] / y[i];
    });
}

void square_root(Tensor x) {
    count_kernel(__func__);
    check_vector("vector of a square root", x, x.size());
    with_vector(x, [&](auto* values) {
        for (std::int64_t i = 0; i < x.size(); ++i) values[i] = values[i] < 0 ? 0 : std::sqrt(values[i]);
    });
}

void divide_by_norm(Tensor x, Tensor squared_norm, double least) {
    count_kernel(__func__);
    check("squared norm", squared_norm, DType::f64, {1});
    const double factor = 1 / std::max(std::sqrt(*squared_norm.data<double>()), least);
    dispatch(x.dtype(), [&]<class T>() {
        for_blocks(x.size(), [&](std::int64_t begin, std::int64_t end) {
            scale_block(x.data<T>() + begin, end - begin, static_cast<Wide<T>>(factor));
        });
    });
}

}  // namespace switchyard::kernels
