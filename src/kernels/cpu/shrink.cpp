// Vectors of a few numbers: one thread.
#include "kernels/shrink.hpp"

#include "core/calls.hpp"
#include "kernels/checks/dots.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

template <class T>
T published(T x, T xi) {
    if (x > xi) x -= xi;
    if (x < -xi) x += xi;
    return std::abs(x) < xi ? T{0} : x;
}

template <class T>
T soft(T x, T xi) {
    return std::copysign(std::max(std::abs(x) - xi, T{0}), x);
}

}  // namespace

void shrink(Tensor x, double xi, Prox prox, Tensor clip) {
    count_kernel(__func__);
    check("clip", clip, DType::f64, {2});
    check_vector("vector", x, x.size());
    with_vector(x, [&](auto* values) {
        using T = std::remove_pointer_t<decltype(values)>;
        if (clip.data<double>()[1] == 0) return;
        for (std::int64_t i = 0; i < x.size(); ++i)
            values[i] = prox == Prox::soft ? soft(values[i], static_cast<T>(xi))
                                           : published(values[i], static_cast<T>(xi));
    });
}

void add_signs(Tensor x, double scale, Tensor to) {
    count_kernel(__func__);
    check("sum with signs", to, x.dtype(), x.shape());
    check_vector("vector", x, x.size());
    with_vector(to, [&](auto* sums) {
        using T = std::remove_pointer_t<decltype(sums)>;
        const T* from = x.data<T>();
        for (std::int64_t i = 0; i < x.size(); ++i)
            sums[i] += static_cast<T>(scale) * static_cast<T>((from[i] > 0) - (from[i] < 0));
    });
}

void add_l1_norm(Tensor x, double scale, Tensor sum) {
    count_kernel(__func__);
    check("sum of magnitudes", sum, DType::f64, {1});
    check_vector("vector", x, x.size());
    with_vector(x, [&](const auto* values) {
        double all = 0;
        for (std::int64_t i = 0; i < x.size(); ++i) all += std::fabs(static_cast<double>(values[i]));
        *sum.data<double>() += scale * all;
    });
}

}  // namespace switchyard::kernels
