// A thread an element; the sum of magnitudes is formed by one thread in order.
#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "kernels/checks/dots.hpp"
#include "kernels/shrink.hpp"

namespace switchyard::kernels {
namespace {

template <class T>
struct Shrink {
    T* x;
    T xi;
    bool soft;
    const double* clip;

    template <int n>
    __device__ void operator()(std::int64_t at) const {
        if (clip[1] == 0) return;
        T value = x[at];
        if (soft) {
            const T rest = fabs(value) - xi;
            value = copysign(rest > 0 ? rest : T(0), value);
        } else {
            if (value > xi) value -= xi;
            if (value < -xi) value += xi;
            if (fabs(value) < xi) value = 0;
        }
        x[at] = value;
    }
};

template <class T>
struct AddSigns {
    const T* x;
    T scale;
    T* to;
    template <int n>
    __device__ void operator()(std::int64_t at) const {
        to[at] += scale * static_cast<T>((x[at] > 0) - (x[at] < 0));
    }
};

template <class T>
__global__ void sum_magnitudes(const T* x, std::int64_t size, double scale, double* sum) {
    double all = 0;
    for (std::int64_t i = 0; i < size; ++i) all += fabs(static_cast<double>(x[i]));
    *sum += scale * all;
}

}  // namespace

void shrink(Tensor x, double xi, Prox prox, Tensor clip) {
    count_kernel(__func__);
    check("clip", clip, DType::f64, {2});
    check_vector("vector", x, x.size());
    with_vector(x, [&]<class T>(T* values) {
        for_elements<T>(x.size(), false,
                        Shrink<T>{values, static_cast<T>(xi), prox == Prox::soft, clip.data<double>()});
    });
}

void add_signs(Tensor x, double scale, Tensor to) {
    count_kernel(__func__);
    check("sum with signs", to, x.dtype(), x.shape());
    check_vector("vector", x, x.size());
    with_vector(to, [&]<class T>(T* sums) {
        for_elements<T>(x.size(), false, AddSigns<T>{x.data<T>(), static_cast<T>(scale), sums});
    });
}

void add_l1_norm(Tensor x, double scale, Tensor sum) {
    count_kernel(__func__);
    check("sum of magnitudes", sum, DType::f64, {1});
    check_vector("vector", x, x.size());
    with_vector(x, [&]<class T>(T* values) {
        cuda::launch({1, 1}, sum_magnitudes<T>, values, x.size(), scale, sum.data<double>());
    });
}

}  // namespace switchyard::kernels
