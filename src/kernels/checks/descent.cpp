#include "kernels/checks/descent.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {

void check_rows(const ScaledRows& rows) {
    const DType wide = rows.master.dtype();
    check_matrix("master", rows.master);
    check_dtype("gradient", rows.gradient, wide);
    check_shape("value", rows.value, rows.gradient.shape());
    internal_check(accumulate_type(rows.value.dtype()) == wide, "value is {}, its master {}",
                   name_of(rows.value.dtype()), name_of(wide));
    internal_check(rows.rows.list.empty() && rows.rows.count == rows.master.dim(0) &&
                       rows.gradient.dim(1) == rows.master.dim(1),
                   "{} rows, listed or not, of a gradient {} for masters {}", rows.rows.count,
                   rows.gradient.shape(), rows.master.shape());
    check_part(part_of(rows, rows.gradient));
    if (!rows.scale.empty()) check("scale of rows", rows.scale, wide, {rows.rows.count});
    check("factor", rows.factor, DType::f64, {1});
}

void check_growth(Tensor squares, Tensor clip, Tensor previous, Tensor factors) {
    check("squares", squares, DType::f64, {squares.size()});
    check("previous norms", previous, DType::f64, squares.shape());
    check("factors", factors, DType::f64, squares.shape());
    check("clip", clip, DType::f64, {2});
}

}  // namespace switchyard::kernels
