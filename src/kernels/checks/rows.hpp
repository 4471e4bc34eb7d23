// Checks of what kernels on rows are called with, for all back ends. Lists of rows lie in back-end memory, so
// that only the back end itself can look at their entries.
#pragma once

#include "kernels/adamw.hpp"
#include "kernels/checks/tensors.hpp"
#include "kernels/moment_codes.hpp"
#include "kernels/rows.hpp"

namespace switchyard::kernels {

inline bool is_number(DType dtype) {
    return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64;
}

/// Throws InternalError unless the type is one of floating-point numbers.
void check_numbers(Tensor);
/// Throws InternalError unless the rectangle lies in its matrix.
void check_part(const RowPart& part);

/// True if the rectangle is one piece of memory.
inline bool is_contiguous(const RowPart& part) {
    return part.rows.list.empty() && (part.rows.count == 1 || part.width == part.matrix.dim(1));
}

void check_task(const RowTask& task);

/// One rectangle of a transfer of all of them.
void check_packed(std::span<const RowPart> all, const RowPart& part);

/// Parts of a sum, of which this rank has number `own`.
void check_parts(Tensor parts, std::int64_t own);
/// One item of a sum of `parts`.
void check_sum(Tensor parts, const RowSum& sum);

/// Parts (n, width) of results.
void check_combined(Tensor parts, Tensor result);

/// The rows of `gradient` or `value` that an update reads or writes.
inline RowPart part_of(const AdamWRows& rows, Tensor tensor) {
    return {tensor, rows.rows, rows.column, rows.m.dim(1)};
}

/// One parameter with rows; with a master or, for a direction alone, without.
void check_rows(const AdamWRows& rows, bool with_master);

/// Rows with shared blocks, and the maxima of all ranks.
void check_shared(const SharedBlocks& shared, Tensor maxima);

}  // namespace switchyard::kernels
