#include "kernels/checks/tensors.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {

void refuse_type(DType dtype) {
    internal_check(false, "kernel for floating-point numbers called with {}", name_of(dtype));
}

void check_owned(Tensor tensor) {
    internal_check(backend::owns(tensor.raw(), tensor.bytes()),
                   "transfer of a tensor {} {} that does not lie in back-end memory", tensor.shape(),
                   name_of(tensor.dtype()));
}

void check_dtype(const char* what, Tensor t, DType dtype) {
    internal_check(t.dtype() == dtype, "{} is {} instead of {}", what, name_of(t.dtype()), name_of(dtype));
}

void check_shape(const char* what, Tensor t, Shape shape) {
    internal_check(t.shape() == shape, "{} is {} instead of {}", what, t.shape(), shape);
}

void check(const char* what, Tensor t, DType dtype, Shape shape) {
    check_dtype(what, t, dtype);
    check_shape(what, t, shape);
}

void check_matrix(const char* what, Tensor t) {
    internal_check(t.shape().rank() == 2, "{} is {} instead of a matrix", what, t.shape());
}

void check_scratch(const char* kernel, Tensor scratch, std::size_t needed) {
    internal_check(needed == 0 || (scratch.bytes() >= needed && scratch.raw()),
                   "{}: scratch of {} bytes where {} are needed", kernel, scratch.bytes(), needed);
}

}  // namespace switchyard::kernels
