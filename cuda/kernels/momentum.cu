// A thread takes 16 bytes of the state, or one element where a tensor begins elsewhere. Whether gradients are
// finite is read on the device.
#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "kernels/checks/momentum.hpp"

namespace switchyard::kernels {
namespace {

template <class T, class Value>
struct Move {
    T* m;
    const T* gradient;
    Value* direction;
    double mu;
    bool nesterov;
    const double* clip;

    template <int n>
    __device__ void operator()(std::int64_t at) const {
        if (clip[1] == 0) return;
        const T keep = static_cast<T>(mu), clipped = static_cast<T>((1 - mu) * clip[0]);
        auto moment = load_chunk<n>(m + at);
        const auto g = load_chunk<n>(gradient + at);
        Chunk<Value, n> out;
        for (int i = 0; i < n; ++i) {
            moment.x[i] = keep * moment.x[i] + clipped * g.x[i];
            out.x[i] = narrow<Value>(nesterov ? keep * moment.x[i] + clipped * g.x[i] : moment.x[i]);
        }
        store_chunk(m + at, moment);
        store_chunk(direction + at, out);
    }
};

/// `value` may be `master`: it gets the same bits.
template <class T, class Value>
struct Apply {
    T* master;
    const Value* direction;
    Value* value;
    T decay, scale;
    const double* clip;

    template <int n>
    __device__ void operator()(std::int64_t at) const {
        if (clip[1] == 0) return;
        auto weight = load_chunk<n>(master + at);
        const auto step = load_chunk<n>(direction + at);
        Chunk<Value, n> out;
        for (int i = 0; i < n; ++i) {
            weight.x[i] = decay * weight.x[i] + scale * wide(step.x[i]);
            out.x[i] = narrow<Value>(weight.x[i]);
        }
        store_chunk(master + at, weight);
        store_chunk(value + at, out);
    }
};

}  // namespace

void momentum(const MomentumStep& step, Tensor clip) {
    count_kernel(__func__);
    check_momentum(step, clip);
    if (step.m.empty()) return;
    dispatch(step.direction.dtype(), [&]<class Value>() {
        using T = Wide<Value>;
        for_elements<T>(
            step.m.size(), aligned(step.m, step.gradient, step.direction),
            Move<T, Value>{step.m.data<T>(), step.gradient.data<T>(), step.direction.data<Value>(),
                           step.momentum, step.nesterov, clip.data<double>()});
    });
}

void apply_direction(const DirectedStep& step, Tensor clip) {
    count_kernel(__func__);
    check_directed(step, clip);
    if (step.value.empty()) return;
    dispatch(step.value.dtype(), [&]<class Value>() {
        using T = Wide<Value>;
        for_elements<T>(
            step.value.size(), aligned(step.master, step.direction, step.value),
            Apply<T, Value>{step.master.data<T>(), step.direction.data<Value>(), step.value.data<Value>(),
                            static_cast<T>(step.decay), static_cast<T>(step.scale), clip.data<double>()});
    });
}

}  // namespace switchyard::kernels
