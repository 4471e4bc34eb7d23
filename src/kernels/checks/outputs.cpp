#include "kernels/checks/outputs.hpp"

namespace switchyard::kernels {

void check_output(const FinishedOutput& o) {
    check_matrix("output", o.y);
    if (!o.bias.empty()) check("bias", o.bias, accumulate_type(o.y.dtype()), {o.y.dim(1)});
    if (!o.teacher.empty()) check("output of a teacher", o.teacher, o.y.dtype(), o.y.shape());
    if (!o.sum.empty()) check("sum of squares", o.sum, DType::f64, {1});
}

}  // namespace switchyard::kernels
