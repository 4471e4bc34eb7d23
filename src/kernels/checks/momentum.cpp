#include "kernels/checks/momentum.hpp"

namespace switchyard::kernels {

void check_momentum(const MomentumStep& step, Tensor clip) {
    check("clip", clip, DType::f64, {2});
    const DType wide = accumulate_type(step.direction.dtype());
    check("moment", step.m, wide, step.direction.shape());
    check("gradient", step.gradient, wide, step.direction.shape());
}

void check_directed(const DirectedStep& step, Tensor clip) {
    check("clip", clip, DType::f64, {2});
    check("master", step.master, accumulate_type(step.value.dtype()), step.value.shape());
    check("direction", step.direction, step.value.dtype(), step.value.shape());
}

}  // namespace switchyard::kernels
