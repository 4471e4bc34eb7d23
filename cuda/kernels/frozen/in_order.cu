// Effective weights with the bits of the CPU: fma over slots in order in f64, one rounding. This file is
// compiled without contraction of a * b + c.
#include "core/calls.hpp"
#include "cuda/kernels/frozen/tiles.cuh"
#include "kernels/checks/frozen.hpp"

namespace switchyard::kernels {
namespace {

template <class Value, class Factor>
void form(Tensor value, const EffectiveWeight& e) {
    const Words<Value> words{value.data<Value>(), nullptr};
    launch_form_tiles<Value, Factor, double>(words, words, e, value.dim(0), value.dim(1), aligned(value));
}

}  // namespace

void form_in_order(Tensor value, const EffectiveWeight& e) {
    count_kernel(__func__);
    const DType factor = check_in_order(value, e);
    if (value.empty()) return;
    if (factor == DType::bf16) return form<float, bf16>(value, e);
    factor == DType::f64 ? form<double, double>(value, e) : form<float, float>(value, e);
}

}  // namespace switchyard::kernels
