#include "kernels/checks/cholesky.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {

void check_grams(Tensor grams, Tensor defects) {
    internal_check(grams.shape().rank() == 3 && grams.dim(1) >= 1 && grams.dim(1) <= most_cholesky_rows,
                   "Cholesky factors of {}", grams.shape());
    check("Gram matrices", grams, DType::f64, {grams.dim(0), grams.dim(1), grams.dim(1)});
    check("defects", defects, DType::f64, {grams.dim(0)});
}

std::int64_t check_divided(std::span<const DividedRows> items) {
    if (items.empty()) return 0;
    const std::int64_t r = items.front().factor.dim(0);
    internal_check(r >= 1 && r <= most_cholesky_rows, "rows of {} numbers divided by a factor", r);
    for (const DividedRows& item : items) {
        check("Cholesky factor", item.factor, DType::f64, {r, r});
        check_part(item.rows);
        internal_check(item.rows.width == r && is_number(item.rows.matrix.dtype()),
                       "rows of {} {} divided by a factor of {}", item.rows.width,
                       name_of(item.rows.matrix.dtype()), r);
    }
    return r;
}

}  // namespace switchyard::kernels
