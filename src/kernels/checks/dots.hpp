// Checks of the arguments of dots.hpp and scaling.hpp, and their C++ types, for all back ends.
#pragma once

#include "kernels/checks/frozen.hpp"
#include "kernels/checks/rows.hpp"
#include "kernels/dots.hpp"

namespace switchyard::kernels {

void check_vector(const char* what, Tensor t, std::int64_t size);

/// f(x as an array of f32 or f64)
template <class F>
void with_vector(Tensor x, const F& f) {
    if (x.dtype() == DType::f64) return f(x.data<double>());
    f(x.data<float>());
}

/// f.operator()<A, B>() with the types of a and b.
template <class F>
void dispatch_both(Tensor a, Tensor b, const F& f) {
    dispatch(a.dtype(),
             [&]<class A>() { dispatch(b.dtype(), [&]<class B>() { f.template operator()<A, B>(); }); });
}

/// `dimension`: the one that `out` has.
void check_dots(Tensor a, Tensor b, Tensor out, int dimension);

void check_squared_norms(const FrozenWeight& w, Tensor out);
void check_quotient(Tensor a, Tensor b, Tensor out);

/// Ranges of rows alone, of the same size.
void check_scaling(const RowPart& from, Tensor factors, std::int64_t num_factors, const RowPart& to);

}  // namespace switchyard::kernels
