// One pass over what is read; arithmetic in the type of the state.
#include "kernels/checks/momentum.hpp"

#include "core/calls.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

/// clipped: 1 - mu times the clip coefficient.
template <class T, class Value>
void move_block(T* m, const T* gradient, Value* direction, std::int64_t n, T mu, T clipped, bool nesterov) {
    const T ahead = nesterov ? mu : T{1}, direct = nesterov ? clipped : T{0};
    for_strips(
        n,
        [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
            for (std::int64_t i = begin; i < end; ++i) {
                const T moment = mu * m[i] + clipped * gradient[i];
                m[i] = moment;
                direction[i] = convert<Value>(ahead * moment + direct * gradient[i]);
            }
        },
        m, gradient, direction);
}

/// `value` may be `master`.
template <class T, class Value>
void apply_block(T* master, const Value* direction, Value* value, std::int64_t n, T decay, T scale) {
    for_strips(
        n,
        [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
            for (std::int64_t i = begin; i < end; ++i) {
                const T updated = decay * master[i] + scale * convert<T>(direction[i]);
                master[i] = updated;
                value[i] = convert<Value>(updated);
            }
        },
        master, direction, value);
}

}  // namespace

void momentum(const MomentumStep& step, Tensor clip) {
    count_kernel(__func__);
    check_momentum(step, clip);
    const double *c = clip.data<double>(), rest = 1 - step.momentum;
    if (c[1] == 0) return;
    dispatch(step.direction.dtype(), [&]<class Value>() {
        using T = Wide<Value>;
        for_blocks(step.m.size(), [&](std::int64_t begin, std::int64_t end) {
            move_block(step.m.data<T>() + begin, step.gradient.data<T>() + begin,
                       step.direction.data<Value>() + begin, end - begin, static_cast<T>(step.momentum),
                       static_cast<T>(rest * c[0]), step.nesterov);
        });
    });
}

void apply_direction(const DirectedStep& step, Tensor clip) {
    count_kernel(__func__);
    check_directed(step, clip);
    if (clip.data<double>()[1] == 0) return;
    dispatch(step.value.dtype(), [&]<class Value>() {
        using T = Wide<Value>;
        for_blocks(step.value.size(), [&](std::int64_t begin, std::int64_t end) {
            apply_block(step.master.data<T>() + begin, step.direction.data<Value>() + begin,
                        step.value.data<Value>() + begin, end - begin, static_cast<T>(step.decay),
                        static_cast<T>(step.scale));
        });
    });
}

}  // namespace switchyard::kernels
