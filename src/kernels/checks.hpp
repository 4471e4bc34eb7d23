// Checks of arguments and the C++ type of a run-time dtype, for all back ends.
#pragma once

#include "core/backend_memory.hpp"
#include "core/bf16.hpp"
#include "core/error.hpp"
#include "core/tensor.hpp"

namespace switchyard::kernels {

/// Calls f.operator()<T>() with T = float, bf16 or double.
template <class F>
void dispatch(DType dtype, F&& f) {
    switch (dtype) {
        case DType::f32:
            return f.template operator()<float>();
        case DType::bf16:
            return f.template operator()<bf16>();
        case DType::f64:
            return f.template operator()<double>();
        default:
            internal_check(false, "kernel for floating-point numbers called with {}", name_of(dtype));
    }
}

/// Refuses tensors over host memory, which would work on some back ends only.
inline void check_owned(Tensor tensor) {
    internal_check(backend::owns(tensor.raw(), tensor.bytes()),
                   "transfer of a tensor {} {} that does not lie in back-end memory", tensor.shape(),
                   name_of(tensor.dtype()));
}

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
