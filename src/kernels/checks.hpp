// Checks of arguments, for all back ends.
#pragma once

#include "core/error.hpp"
#include "core/tensor.hpp"

namespace switchyard::kernels {

inline void check_dtype(const char* what, Tensor t, DType dtype) {
    internal_check(t.dtype() == dtype, "{} is {} instead of {}", what, name_of(t.dtype()), name_of(dtype));
}

inline void check_shape(const char* what, Tensor t, Shape shape) {
    internal_check(t.shape() == shape, "{} is {} instead of {}", what, t.shape(), shape);
}

inline void check(const char* what, Tensor t, DType dtype, Shape shape) {
    check_dtype(what, t, dtype);
    check_shape(what, t, shape);
}

}  // namespace switchyard::kernels
