// A thread takes 16 bytes of every array. It reads them before it writes, so outputs may be inputs.
// Arithmetic is in f32 (f64).
#include <cmath>

#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "kernels/checks/model.hpp"
#include "kernels/swiglu.hpp"

namespace switchyard::kernels {
namespace {

/// 1 / (1 + e^-x), without overflow.
template <class X>
__device__ X sigmoid(X x) {
    const X e = std::exp(-std::fabs(x));
    return (x < 0 ? e : X(1)) / (1 + e);
}

template <class T>
struct Forward {
    const T *gate, *up;
    T* a;

    template <int n>
    __device__ void operator()(std::int64_t at) const {
        const auto gates = load_chunk<n>(gate + at), ups = load_chunk<n>(up + at);
        Chunk<T, n> out;
        for (int i = 0; i < n; ++i) {
            const Wide<T> g = wide(gates.x[i]);
            out.x[i] = narrow<T>(g * sigmoid(g) * wide(ups.x[i]));
        }
        store_chunk(a + at, out);
    }
};

/// silu'(g) = sigmoid (1 + g (1 - sigmoid)). `a`: null if it is not wanted.
template <class T>
struct Backward {
    const T *d_a, *gate, *up;
    T *d_gate, *d_up, *a;

    template <int n>
    __device__ void operator()(std::int64_t at) const {
        const auto gradients = load_chunk<n>(d_a + at), gates = load_chunk<n>(gate + at),
                   ups = load_chunk<n>(up + at);
        Chunk<T, n> to_gate, to_up, out;
        for (int i = 0; i < n; ++i) {
            const Wide<T> d = wide(gradients.x[i]), g = wide(gates.x[i]), u = wide(ups.x[i]);
            const Wide<T> s = sigmoid(g), silu = g * s;
            to_gate.x[i] = narrow<T>(d * u * (s * (1 + g * (1 - s))));
            to_up.x[i] = narrow<T>(d * silu);
            out.x[i] = narrow<T>(silu * u);
        }
        store_chunk(d_gate + at, to_gate);
        store_chunk(d_up + at, to_up);
        if (a) store_chunk(a + at, out);
    }
};

}  // namespace

void swiglu_forward(Tensor gate, Tensor up, Tensor a) {
    count_kernel(__func__);
    check_swiglu(gate, {up, a}, {});
    if (gate.empty()) return;
    dispatch(gate.dtype(), [&]<class T>() {
        for_elements<T>(gate.size(), aligned(gate, up, a),
                        Forward<T>{gate.data<T>(), up.data<T>(), a.data<T>()});
    });
}

void swiglu_backward(Tensor d_a, Tensor gate, Tensor up, Tensor d_gate, Tensor d_up, Tensor a) {
    count_kernel(__func__);
    check_swiglu(gate, {d_a, up, d_gate, d_up}, a);
    if (gate.empty()) return;
    dispatch(gate.dtype(), [&]<class T>() {
        for_elements<T>(gate.size(), aligned(d_a, gate, up, d_gate, d_up, a),
                        Backward<T>{d_a.data<T>(), gate.data<T>(), up.data<T>(), d_gate.data<T>(),
                                    d_up.data<T>(), a.empty() ? nullptr : a.data<T>()});
    });
}

}  // namespace switchyard::kernels
