// Checks of arguments and the C++ type of a run-time dtype, for all back ends.
#pragma once

#include "core/backend_memory.hpp"
#include "core/bf16.hpp"
#include "core/tensor.hpp"

namespace switchyard::kernels {

/// Throws an InternalError: the type is not of floating-point numbers.
void refuse_type(DType);

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
            refuse_type(dtype);
    }
}

/// Refuses tensors over host memory, which would work on some back ends only.
void check_owned(Tensor tensor);

void check_dtype(const char* what, Tensor t, DType dtype);
void check_shape(const char* what, Tensor t, Shape shape);
void check(const char* what, Tensor t, DType dtype, Shape shape);
void check_matrix(const char* what, Tensor t);
/// Throws InternalError if a kernel's scratch memory has fewer than `needed` bytes.
void check_scratch(const char* kernel, Tensor scratch, std::size_t needed);

}  // namespace switchyard::kernels
