#include "kernels/checks/rows.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {
namespace {

/// Scales of moments that are codes, and maxima of blocks that ranks share.
void check_codes(const AdamWRows& rows, DType wide) {
    const std::int64_t count = rows.m.dim(0), width = rows.m.dim(1);
    const Shape scales{count, num_code_blocks(rows.whole_column, width)};
    internal_check(rows.whole_column >= 0, "codes from column {} on", rows.whole_column);
    check("scales of m", rows.m_scale, wide, scales);
    check("scales of v", rows.v_scale, wide, scales);
    if (!rows.end_maxima.empty()) check("maxima of shared blocks", rows.end_maxima, wide, {count, 4});
}

}  // namespace

void check_numbers(Tensor x) {
    internal_check(is_number(x.dtype()), "kernel for floating-point numbers called with {} {}", x.shape(),
                   name_of(x.dtype()));
}

void check_part(const RowPart& part) {
    const Tensor& matrix = part.matrix;
    check_matrix("tensor of rows", matrix);
    internal_check(part.column >= 0 && part.width >= 0 && part.column + part.width <= matrix.dim(1),
                   "columns [{}, {}) of a tensor {}", part.column, part.column + part.width, matrix.shape());
    if (!part.rows.list.empty()) return check("list of rows", part.rows.list, DType::i32, {part.rows.count});
    internal_check(
        part.rows.first >= 0 && part.rows.count >= 0 && part.rows.first + part.rows.count <= matrix.dim(0),
        "rows [{}, {}) of a tensor {}", part.rows.first, part.rows.first + part.rows.count, matrix.shape());
}

void check_task(const RowTask& task) {
    check_part(task.to);
    for (const RowPart* part : {&task.from, &task.minus}) {
        if (part->matrix.shape().rank() == 0) continue;
        check_part(*part);
        internal_check(part->rows.count == task.to.rows.count && part->width == task.to.width,
                       "{} rows of {} for {} rows of {}", part->rows.count, part->width, task.to.rows.count,
                       task.to.width);
        const DType from = part->matrix.dtype(), to = task.to.matrix.dtype();
        internal_check(from == to || (is_number(from) && is_number(to)), "rows of {} copied to {}",
                       name_of(from), name_of(to));
    }
    internal_check(
        task.minus.matrix.shape().rank() == 0 ||
            (task.minus.matrix.dtype() == task.from.matrix.dtype() && is_number(task.from.matrix.dtype())),
        "difference of {} and {}", name_of(task.from.matrix.dtype()), name_of(task.minus.matrix.dtype()));
}

void check_packed(std::span<const RowPart> all, const RowPart& part) {
    check_part(part);
    check_owned(part.matrix);
    internal_check(part.rows.list.empty() && part.width == all.front().width,
                   "transfer of {} rows of {}, listed or beside rows of {}", part.rows.count, part.width,
                   all.front().width);
}

void check_parts(Tensor parts, std::int64_t own) {
    internal_check(parts.shape().rank() == 2 && own >= 0 && own < parts.dim(0),
                   "sum of parts {}, {} of them here", parts.shape(), own);
}

void check_combined(Tensor parts, Tensor result) {
    internal_check(parts.shape().rank() == 2 && parts.dim(0) > 0 && parts.dtype() == DType::f64,
                   "parts {} of a result", parts.shape());
    check("combined parts", result, DType::f64, {parts.dim(1)});
}

void check_sum(Tensor parts, const RowSum& sum) {
    check_part(sum.to);
    const std::int64_t rows = sum.to.rows.count, width = sum.to.width;
    internal_check(sum.offset >= 0 && sum.offset + rows * width <= parts.dim(1),
                   "sum of parts {} from {} on into {} rows of {}", parts.shape(), sum.offset, rows, width);
    internal_check(is_number(parts.dtype()) && is_number(sum.to.matrix.dtype()), "sum of {} into {}",
                   name_of(parts.dtype()), name_of(sum.to.matrix.dtype()));
}

void check_rows(const AdamWRows& rows, bool with_master) {
    internal_check(rows.m.shape().rank() == 2 && rows.gradient.shape().rank() == 2,
                   "AdamW on {} with gradient {}", rows.m.shape(), rows.gradient.shape());
    const std::int64_t count = rows.m.dim(0);
    const DType wide = rows.coded() ? rows.m_scale.dtype() : rows.m.dtype();
    check("moment", rows.v, rows.m.dtype(), rows.m.shape());
    if (rows.coded()) check_codes(rows, wide);
    if (with_master) check("master", rows.master, wide, rows.m.shape());
    internal_check(with_master || rows.master.empty(), "a direction with a master {}", rows.master.shape());
    internal_check(with_master || rows.end_maxima.empty(), "a direction with blocks that ranks share");
    check_dtype("gradient", rows.gradient, wide);
    check_shape("value", rows.value, rows.gradient.shape());
    internal_check(accumulate_type(rows.value.dtype()) == wide, "value is {}, its moments {}",
                   name_of(rows.value.dtype()), name_of(wide));
    check_dtype("step counters", rows.step, DType::i32);
    internal_check(rows.step.size() == 1 || rows.step.size() == count, "{} step counters for {} rows",
                   rows.step.size(), count);
    if (!rows.frozen.empty()) check("frozen rows", rows.frozen, DType::i32, {count});
    internal_check(rows.rows.count == count, "{} rows of a gradient for {} of the state", rows.rows.count,
                   count);
    check_part(part_of(rows, rows.gradient));
}

void check_shared(const SharedBlocks& shared, Tensor maxima) {
    const AdamWRows& rows = shared.rows;
    internal_check(rows.coded() && !rows.end_maxima.empty() && maxima.shape().rank() == 2,
                   "shared blocks of {} with maxima {}", rows.m.shape(), maxima.shape());
    check_rows(rows, true);
    check_dtype("maxima of ranks", maxima, rows.m_scale.dtype());
    internal_check(shared.first >= 0 && shared.first + rows.end_maxima.size() <= maxima.dim(1) &&
                       rows.whole_column % rows.m.dim(1) == 0 &&
                       rows.whole_column / rows.m.dim(1) < maxima.dim(0),
                   "maxima {} from {} on for {} rows of {} from column {} on", maxima.shape(), shared.first,
                   rows.m.dim(0), rows.m.dim(1), rows.whole_column);
}

}  // namespace switchyard::kernels
