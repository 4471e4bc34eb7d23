#include "kernels/checks/outputs.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {

void check_output(const FinishedOutput& o) {
    internal_check(o.y.shape().rank() == 2, "output {}", o.y.shape());
    if (!o.bias.empty()) check("bias", o.bias, accumulate_type(o.y.dtype()), {o.y.dim(1)});
    if (!o.teacher.empty()) check("output of a teacher", o.teacher, o.y.dtype(), o.y.shape());
    if (!o.sum.empty()) check("sum of squares", o.sum, DType::f64, {1});
}

}  // namespace switchyard::kernels
