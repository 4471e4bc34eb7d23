// Arithmetic is in f32 (f64). Within a block every element is read before it is written, so outputs may be
// inputs.
#include "kernels/swiglu.hpp"

#include "core/calls.hpp"
#include "kernels/checks/model.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels {
namespace {

template <class T>
void forward_block(const T* gate, const T* up, T* a, std::int64_t n) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
        const Wide<T> g = load(gate[i]);
        a[i] = convert<T>(g * sigmoid(g) * load(up[i]));
    }
}

/// silu'(g) = sigmoid (1 + g (1 - sigmoid)).
template <bool recompute, class T>
void backward_block(const T* d_a, const T* gate, const T* up, T* d_gate, T* d_up, T* a, std::int64_t n) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
        const Wide<T> d = load(d_a[i]), g = load(gate[i]), u = load(up[i]);
        const Wide<T> s = sigmoid(g), silu = g * s;
        d_gate[i] = convert<T>(d * u * (s * (1 + g * (1 - s))));
        d_up[i] = convert<T>(d * silu);
        if constexpr (recompute) a[i] = convert<T>(silu * u);
    }
}

}  // namespace

void swiglu_forward(Tensor gate, Tensor up, Tensor a) {
    count_kernel(__func__);
    check_swiglu(gate, {up, a}, {});
    if (gate.empty()) return;
    dispatch(gate.dtype(), [&]<class T>() {
        for_blocks(gate.size(), [=](std::int64_t begin, std::int64_t end) {
            const T *g = gate.data<T>() + begin, *u = up.data<T>() + begin;
            T* to = a.data<T>() + begin;
            const auto strip = [=](std::int64_t i, std::int64_t j) {
                forward_block(g + i, u + i, to + i, j - i);
            };
            for_strips(end - begin, strip, g, u, to);
        });
    });
}

void swiglu_backward(Tensor d_a, Tensor gate, Tensor up, Tensor d_gate, Tensor d_up, Tensor a) {
    count_kernel(__func__);
    check_swiglu(gate, {d_a, up, d_gate, d_up}, a);
    if (gate.empty()) return;
    dispatch(gate.dtype(), [&]<class T>() {
        for_blocks(gate.size(), [=](std::int64_t begin, std::int64_t end) {
            const T *g = gate.data<T>() + begin, *u = up.data<T>() + begin, *d = d_a.data<T>() + begin;
            T *to_gate = d_gate.data<T>() + begin, *to_up = d_up.data<T>() + begin;
            T* to = a.empty() ? nullptr : a.data<T>() + begin;
            const auto strip = [=](std::int64_t i, std::int64_t j) {
                if (!to)
                    backward_block<false, T>(d + i, g + i, u + i, to_gate + i, to_up + i, nullptr, j - i);
                else
                    backward_block<true, T>(d + i, g + i, u + i, to_gate + i, to_up + i, to + i, j - i);
            };
            for_strips(end - begin, strip, d, g, u, to_gate, to_up);
        });
    });
}

}  // namespace switchyard::kernels
