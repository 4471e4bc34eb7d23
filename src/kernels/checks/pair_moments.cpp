#include "kernels/checks/pair_moments.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {
namespace {

void check_wide(const char* what, Tensor t) {
    internal_check(t.shape().rank() == 2 && (t.dtype() == DType::f32 || t.dtype() == DType::f64),
                   "{} is {} {}", what, t.shape(), name_of(t.dtype()));
}

}  // namespace

void check_pair_moments(const PairMoments& p) {
    check_wide("first moment", p.m);
    const std::int64_t rows = p.m.dim(0), r = p.m.dim(1);
    internal_check(r >= 1 && r <= most_pair_rank, "second moments of {} coordinates", r);
    check("second moments", p.v, p.m.dtype(), {rows, num_pairs(r)});
    check("step counter", p.step, DType::i32, {1});
    check("map of coordinates", p.map, DType::f64, {r, r});
    check("corrections", p.corrections, DType::f64, {2});
    check_part(p.gradient);
    check_dtype("gradient", p.gradient.matrix, p.m.dtype());
    internal_check(p.gradient.rows.count == rows && p.gradient.width == r,
                   "{} rows of {} in a gradient for {} of {}", p.gradient.rows.count, p.gradient.width, rows,
                   r);
}

void check_pair_products(Tensor rows, Tensor pairs) {
    check_wide("rows of coordinates", rows);
    check("products of pairs", pairs, rows.dtype(), {rows.dim(0), num_pairs(rows.dim(1))});
}

void check_pair_direction(Tensor first, Tensor second, Tensor corrections) {
    check_wide("first moments", first);
    check("second moments", second, first.dtype(), first.shape());
    check("corrections", corrections, DType::f64, {2});
}

}  // namespace switchyard::kernels
