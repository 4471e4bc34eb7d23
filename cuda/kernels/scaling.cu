// A thread an element.
#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "kernels/checks/dots.hpp"
#include "kernels/scaling.hpp"

namespace switchyard::kernels {
namespace {

/// A rectangle's first element and the distance of its rows.
template <class T>
struct Rectangle {
    T* first;
    std::int64_t stride;
    explicit Rectangle(const RowPart& part)
        : first(part.matrix.data<T>() + part.rows.first * part.matrix.dim(1) + part.column),
          stride(part.matrix.dim(1)) {}
};

template <class From, class Factor, class To>
struct ScaleColumns {
    Rectangle<From> from;
    const Factor* factors;
    Rectangle<To> to;
    std::int64_t width;
    double scale;
    bool accumulate;

    template <int n>
    __device__ void operator()(std::int64_t at) const {
        const std::int64_t row = at / width, column = at % width;
        To& result = to.first[row * to.stride + column];
        const double product = scale * static_cast<double>(factors[column]) *
                               static_cast<double>(wide(from.first[row * from.stride + column]));
        result = narrow<To>(accumulate ? static_cast<double>(wide(result)) + product : product);
    }
};

template <class T, class Factor>
struct ScaleRows {
    T* x;
    const Factor* factors;
    std::int64_t width;
    template <int n>
    __device__ void operator()(std::int64_t at) const {
        x[at] = narrow<T>(static_cast<double>(factors[at / width]) * static_cast<double>(wide(x[at])));
    }
};

template <class T>
struct Divide {
    const T *a, *b;
    T* out;
    template <int n>
    __device__ void operator()(std::int64_t at) const {
        out[at] = b[at] == 0 ? T(0) : a[at] / b[at];
    }
};

template <class T>
struct SquareRoot {
    T* x;
    template <int n>
    __device__ void operator()(std::int64_t at) const {
        x[at] = x[at] < 0 ? T(0) : sqrt(x[at]);
    }
};

template <class T>
struct DivideByNorm {
    T* x;
    const double* squared_norm;
    double least;
    template <int n>
    __device__ void operator()(std::int64_t at) const {
        const auto factor = static_cast<Wide<T>>(1 / fmax(sqrt(*squared_norm), least));
        auto chunk = load_chunk<n>(x + at);
        for (int i = 0; i < n; ++i) chunk.x[i] = narrow<T>(factor * wide(chunk.x[i]));
        store_chunk(x + at, chunk);
    }
};

}  // namespace

void scale_columns(const ColumnScaling& s) {
    count_kernel(__func__);
    check_scaling(s.from, s.factors, s.to.width, s.to);
    dispatch(s.from.matrix.dtype(), [&]<class From>() {
        dispatch(s.to.matrix.dtype(), [&]<class To>() {
            with_vector(s.factors, [&]<class Factor>(Factor* factors) {
                for_elements<To>(
                    s.to.rows.count * s.to.width, false,
                    ScaleColumns<From, Factor, To>{Rectangle<From>(s.from), factors, Rectangle<To>(s.to),
                                                   s.to.width, s.scale, s.accumulate});
            });
        });
    });
}

void scale_rows(Tensor x, Tensor factors) {
    count_kernel(__func__);
    check_vector("factors of rows", factors, x.dim(0));
    dispatch(x.dtype(), [&]<class T>() {
        with_vector(factors, [&]<class Factor>(Factor* values) {
            for_elements<T>(x.size(), false, ScaleRows<T, Factor>{x.data<T>(), values, x.dim(1)});
        });
    });
}

void divide(Tensor a, Tensor b, Tensor out) {
    count_kernel(__func__);
    check_quotient(a, b, out);
    with_vector(out, [&]<class T>(T* to) {
        for_elements<T>(a.size(), false, Divide<T>{a.data<T>(), b.data<T>(), to});
    });
}

void square_root(Tensor x) {
    count_kernel(__func__);
    check_vector("vector of a square root", x, x.size());
    with_vector(x, [&]<class T>(T* values) { for_elements<T>(x.size(), false, SquareRoot<T>{values}); });
}

void divide_by_norm(Tensor x, Tensor squared_norm, double least) {
    count_kernel(__func__);
    check("squared norm", squared_norm, DType::f64, {1});
    dispatch(x.dtype(), [&]<class T>() {
        for_elements<T>(x.size(), aligned(x),
                        DivideByNorm<T>{x.data<T>(), squared_norm.data<double>(), least});
    });
}

}  // namespace switchyard::kernels
