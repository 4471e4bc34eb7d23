#include "kernels/checks/dots.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {

void check_vector(const char* what, Tensor t, std::int64_t size) {
    internal_check(t.size() == size && (t.dtype() == DType::f32 || t.dtype() == DType::f64),
                   "{} is {} {} instead of {} f32 or f64", what, t.shape(), name_of(t.dtype()), size);
}

void check_dots(Tensor a, Tensor b, Tensor out, int dimension) {
    check_matrix("factor of dot products", a);
    check_shape("second factor of dot products", b, a.shape());
    check_vector("dot products", out, a.dim(dimension));
}

void check_squared_norms(const FrozenWeight& w, Tensor out) {
    check("squared norms of rows", out, accumulate_type(w.hi.dtype()), {w.hi.dim(0)});
    internal_check(w.lo.empty() != is_split(w), "frozen weight {} in {}: low words {}", w.hi.shape(),
                   name_of(w.hi.dtype()), w.lo.shape());
}

void check_quotient(Tensor a, Tensor b, Tensor out) {
    check_vector("quotient", out, a.size());
    check("numerator", a, out.dtype(), a.shape());
    check_dtype("denominator", b, out.dtype());
    check_vector("denominator", b, a.size());
}

void check_scaling(const RowPart& from, Tensor factors, std::int64_t num_factors, const RowPart& to) {
    check_part(from);
    check_part(to);
    internal_check(
        from.rows.list.empty() && to.rows.list.empty() && from.rows.count == to.rows.count &&
            from.width == to.width && is_number(from.matrix.dtype()) && is_number(to.matrix.dtype()),
        "{} rows of {} scaled into {} of {}", from.rows.count, from.width, to.rows.count, to.width);
    check_vector("factors", factors, num_factors);
}

}  // namespace switchyard::kernels
