// Rows of matrices: which ones (Rows), and copies, differences, zeros and sums of many of them in one call.
// Lists of rows lie in back-end memory. Within one call the order is undefined: no row may be written twice,
// and no row that is written may be read.
#pragma once

#include <span>
#include <vector>

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// Rows of a 2-D tensor: first ... first + count - 1 or, if `list` is not empty, those in the list.
struct Rows {
    std::int64_t first = 0, count = 0;
    Tensor list;  // (count) i32 in back-end memory, or empty
    static Rows range(std::int64_t first, std::int64_t count) { return {first, count, {}}; }
    static Rows listed(Tensor list) { return {0, list.empty() ? 0 : list.size(), list}; }
};

/// A rectangle of a 2-D tensor: columns [column, column + width) of some rows.
struct RowPart {
    Tensor matrix;
    Rows rows;
    std::int64_t column = 0, width = 0;
};
/// Whole rows; a 1-D tensor has rows of one element.
RowPart whole_rows(Tensor, const Rows&);
RowPart whole_rows(Tensor);  // all of them

/// `to` <- `from` (converted, rounded to nearest even), or `from - minus` (in accumulate_type of `to`,
/// rounded once), or zero if both are empty. Integers are copied to the same type.
struct RowTask {
    RowPart to, from, minus;
};
void run_rows(std::span<const RowTask>);

/// Collects work on many rows, which run() does in one call.
class RowBatch {
  public:
    void copy(const RowPart& from, const RowPart& to) { add({to, from, {}}); }
    void subtract(const RowPart& from, const RowPart& minus, const RowPart& to) { add({to, from, minus}); }
    void zero(const RowPart& to) { add({to, {}, {}}); }
    bool empty() const { return tasks_.empty(); }
    /// Runs the work and empties the batch; without work there is no call.
    void run();

  private:
    void add(const RowTask& task) {
        if (task.to.rows.count > 0 && task.to.width > 0) tasks_.push_back(task);
    }
    std::vector<RowTask> tasks_;
};

/// Copies one rectangle.
void copy_rows(const RowPart& from, const RowPart& to);

/// `to` <- the sum of P parts. One part is `to` itself; the others are in P - 1 of the P rows of a tensor,
/// each from column `offset` on, with the rows of the rectangle one after another.
struct RowSum {
    RowPart to;
    std::int64_t offset = 0;
};
/// Parts are summed in order 0 ... P - 1 in accumulate_type of `to` and rounded once. Part `own` is `to`
/// itself, rounded to the type of `parts`; every other part p is in row p of `parts` (P, n).
void sum_parts(Tensor parts, std::int64_t own, std::span<const RowSum>);

/// The number of elements that one rank's part of a communication buffer should have: enough to fill this
/// back end, and few enough to stay in its caches.
std::int64_t segment_elements();

/// sums (items) f64 <- the sum of squares of each rectangle in f64; NaN or infinity if an element is.
void squared_norms(std::span<const RowPart>, Tensor sums);

}  // namespace switchyard::kernels
